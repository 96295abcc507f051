// {{name}}: uses the target where it is near enough, and the draft model elsewhere.
//
// Names are those of the contract in camel case; an enum is a string in kebab case, a list of u8 an Uint8Array.

const TARGET = 2;
const MEDIA_AT_EDGE = 2;

function plan(request, parts, nodes, params, calibration) {
  // In the order of policy.toml.
  const [rttLimit] = params;
  const bound = (request.flags & MEDIA_AT_EDGE) !== 0 && parts.some((part) => part.modality !== 0);
  const peer = nodes.findIndex(
    (node, row) =>
      row > 0 && node.up && (node.can & TARGET) !== 0 && node.rttMs >= 0 && node.rttMs <= rttLimit && !bound,
  );
  const there = peer > 0;
  return {
    tag: 'run',
    val: {
      route: there ? 'cloud' : 'edge',
      peer: there ? peer : 0,
      mode: 'exact',
      gammaMax: 4,
      inFlightMax: 1,
      patienceMs: 1000,
      parts: [],
      memo: new Uint8Array(0),
      reason: there ? 1 : 0,
      terms: [there ? nodes[peer].rttMs : -1],
    },
  };
}

// Called on routes `edge` and `speculate` whenever something happened. Says draft, send, commit, wait, escalate or finish.
function step(
  kind, pAccept, top1, entropyNats, margin, judged, accepted, unsent, inFlight, committed, waitedMs, elapsedMs, rttMs,
  queueMs, memo,
) {
  return 'finish';
}

// Called once at the end. Returns updates: { operation: 'sample', key, value, weight }.
function observe(outcome, params, calibration) {
  return [];
}

export const policy = { plan, step, observe };

// The worked example: estimate how long each route would take, take the quickest, learn how wrong the estimate was.
//
// The same policy stands beside this one in Rust, C and Python. All four give the same plans to the last bit, so each
// does its arithmetic in the same order, with nothing but + - * / and comparisons.
//
// Names are those of the contract in camel case; an enum is a string in kebab case, a list of u8 an Uint8Array.

// The manifest's reasons, by number.
const UNKNOWN = 0;
const EDGE_QUICKEST = 1;
const OWN_TARGET_QUICKEST = 2;
const CLOUD_QUICKEST = 3;
const SPECULATION_QUICKEST = 4;

// Bits of node.can and request.flags.
const DRAFT = 1;
const TARGET = 2;
const VERIFIES_OURS = 4 | 8;
const EXACT = 1;
const MEDIA_AT_EDGE = 2;

const ROUTES = ['edge', 'cloud', 'cloud-draft', 'speculate'];
const EDGE = 0;
const CLOUD = 1;
const SPECULATE = 3;

// Below this acceptance probability a draft is sent at once: what follows it would likely be wasted.
const DOUBTFUL = 0.3;

// The memo: the route by number, the drafts a round, and the estimate that `observe` compares with; little-endian.
const NOTE_BYTES = 13;

function encode(route, gamma, estimateMs) {
  const bytes = new Uint8Array(NOTE_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, route);
  view.setUint32(1, gamma, true);
  view.setFloat64(5, estimateMs, true);
  return bytes;
}

function decode(memo) {
  if (memo.length !== NOTE_BYTES) {
    return null;
  }
  const bytes = Uint8Array.from(memo);
  const view = new DataView(bytes.buffer);
  return {
    route: view.getUint8(0),
    gamma: view.getUint32(1, true),
    estimateMs: view.getFloat64(5, true),
  };
}

function atLeast0(value) {
  return value > 0 ? value : 0;
}

function waitMs(node) {
  return atLeast0(node.queueMs) + atLeast0(node.plannedMs);
}

// The mean of what was learned under `key`, 1 where nothing was. Keys are sorted.
function learned(calibration, key) {
  let low = 0;
  let high = calibration.keys.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (calibration.keys[middle] < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < calibration.keys.length && calibration.keys[low] === key ? calibration.mean[low] : 1;
}

// Tokens that a round of `gamma` drafts yields when each is accepted with probability `acceptance`.
function yields(acceptance, gamma) {
  let allAccepted = 1;
  let tokens = 1;
  for (let i = 0; i < gamma; i += 1) {
    allAccepted *= acceptance;
    tokens += allAccepted;
  }
  return tokens;
}

// `candidate`, if it is less or there was none.
function quicker(before, candidate) {
  return before < 0 || candidate < before ? candidate : before;
}

function plan(request, parts, nodes, params, calibration) {
  const [margin, gamma] = params;
  const here = nodes[0];
  const prompt = request.promptTokens;
  const tokens = request.maxTokens;
  let mediaBytes = 0;
  let hasMedia = false;
  for (const part of parts) {
    if (part.modality !== 0) {
      mediaBytes += part.bytes;
      hasMedia = true;
    }
  }
  const bound = hasMedia && (request.flags & MEDIA_AT_EDGE) !== 0;

  let edgeMs = -1;
  let cloudMs = -1;
  let speculateMs = -1;
  const choice = { route: EDGE, peer: 0, reason: UNKNOWN, estimateMs: 0, comparedMs: -1 };
  const offer = (route, peer, reason, estimateMs, factor) => {
    const comparedMs = estimateMs * factor;
    if (choice.comparedMs < 0 || comparedMs < choice.comparedMs) {
      Object.assign(choice, { route, peer, reason, estimateMs, comparedMs });
    }
  };

  const reads = here.prefillTokPerS > 0;
  const drafts = (here.can & DRAFT) !== 0 && here.draftTokPerS > 0;
  if (drafts && reads) {
    const readMs = (prompt * 1000) / here.prefillTokPerS;
    const writeMs = (tokens * 1000) / here.draftTokPerS;
    edgeMs = (waitMs(here) + readMs + writeMs) * learned(calibration, EDGE);
    // The draft model's own answer is quick, and not what the target would have said.
    if ((request.flags & EXACT) === 0) {
      offer(EDGE, 0, EDGE_QUICKEST, edgeMs, 1);
    }
  }
  if ((here.can & TARGET) !== 0 && here.targetTokPerS > 0 && reads) {
    const readMs = (prompt * 1000) / here.prefillTokPerS;
    const writeMs = (tokens * 1000) / here.targetTokPerS;
    cloudMs = (waitMs(here) + readMs + writeMs) * learned(calibration, CLOUD);
    offer(CLOUD, 0, OWN_TARGET_QUICKEST, cloudMs, 1);
  }
  for (let row = 1; row < nodes.length; row += 1) {
    const node = nodes[row];
    const known = node.uplinkBps > 0 && node.rttMs >= 0 && node.prefillTokPerS > 0;
    if (!node.up || (node.can & TARGET) === 0 || !known || bound) {
      continue;
    }
    const missingBytes = atLeast0(mediaBytes - atLeast0(node.cachedBytes));
    const uploadMs = (missingBytes * 8000) / node.uplinkBps;
    const readMs = (prompt * 1000) / node.prefillTokPerS;
    const beginsMs = node.rttMs + waitMs(node) + uploadMs + readMs;
    if (node.targetTokPerS > 0) {
      const writeMs = (tokens * 1000) / node.targetTokPerS;
      const estimateMs = (beginsMs + writeMs) * learned(calibration, CLOUD);
      cloudMs = quicker(cloudMs, estimateMs);
      offer(CLOUD, row, CLOUD_QUICKEST, estimateMs, margin);
    }
    const verifies = (node.can & VERIFIES_OURS) === VERIFIES_OURS;
    if (drafts && verifies && node.verifyMs > 0 && node.acceptance >= 0) {
      const draftMs = (gamma * 1000) / here.draftTokPerS;
      const roundMs = draftMs + node.rttMs + waitMs(node) + node.verifyMs;
      const writeMs = (tokens * roundMs) / yields(node.acceptance, gamma);
      const estimateMs = (beginsMs + writeMs) * learned(calibration, SPECULATE);
      speculateMs = quicker(speculateMs, estimateMs);
      offer(SPECULATE, row, SPECULATION_QUICKEST, estimateMs, margin);
    }
  }
  if (choice.comparedMs < 0) {
    const peer = nodes.findIndex((node, row) => row > 0 && node.up && (node.can & TARGET) !== 0 && !bound);
    if ((here.can & TARGET) !== 0) {
      choice.route = CLOUD;
    } else if (peer > 0) {
      choice.route = CLOUD;
      choice.peer = peer;
    }
  }

  return {
    tag: 'run',
    val: {
      route: ROUTES[choice.route],
      peer: choice.peer,
      mode: 'exact',
      gammaMax: gamma,
      inFlightMax: 1,
      patienceMs: 1000,
      parts: [],
      memo: encode(choice.route, gamma, choice.estimateMs),
      reason: choice.reason,
      terms: [edgeMs, cloudMs, speculateMs],
    },
  };
}

function step(
  kind, pAccept, top1, entropyNats, margin, judged, accepted, unsent, inFlight, committed, waitedMs, elapsedMs, rttMs,
  queueMs, memo,
) {
  // A fallback plan has no note: it speculates with four drafts a round.
  const note = decode(memo) ?? { route: SPECULATE, gamma: 4, estimateMs: 0 };
  if (note.route === EDGE) {
    return 'finish';
  }
  if (kind === 3 || kind === 5) {
    return 'finish';
  }
  if (kind === 2 || inFlight >= note.gamma) {
    return 'wait';
  }
  if (unsent >= note.gamma || (unsent > 0 && pAccept < DOUBTFUL)) {
    return 'send';
  }
  return 'draft';
}

function observe(outcome, params, calibration) {
  const weight = params[2];
  const note = decode(outcome.memo);
  if (note === null || outcome.status !== 0 || outcome.route !== note.route) {
    return [];
  }
  if (!(outcome.totalMs > 0) || !(note.estimateMs > 0)) {
    return [];
  }
  return [{ operation: 'sample', key: note.route, value: outcome.totalMs / note.estimateMs, weight }];
}

export const policy = { plan, step, observe };

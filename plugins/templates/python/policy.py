"""{{name}}: uses the target where it is near enough, and the draft model elsewhere.

The package `wit_world` is made from the contract when the component is built.
"""

from wit_world import exports
from wit_world.exports.policy import Action
from wit_world.imports.types import Decision_Run, Mode, Plan, Route

TARGET = 2
MEDIA_AT_EDGE = 2


def near_target(request, parts, nodes, rtt_limit):
    """The row of the first target that is near enough, 0 for none."""
    if request.flags & MEDIA_AT_EDGE and any(part.modality != 0 for part in parts):
        return 0
    for row in range(1, len(nodes)):
        node = nodes[row]
        if node.up and node.can & TARGET and 0.0 <= node.rtt_ms <= rtt_limit:
            return row
    return 0


class Policy(exports.Policy):
    def plan(self, request, parts, nodes, params, calibration):
        # In the order of policy.toml.
        (rtt_limit,) = params
        peer = near_target(request, parts, nodes, rtt_limit)
        return Decision_Run(Plan(
            route=Route.CLOUD if peer else Route.EDGE,
            peer=peer,
            mode=Mode.EXACT,
            gamma_max=4,
            in_flight_max=1,
            patience_ms=1000.0,
            parts=[],
            memo=b"",
            reason=1 if peer else 0,
            terms=[nodes[peer].rtt_ms if peer else -1.0],
        ))

    # Called on routes `edge` and `speculate` whenever something happened.
    def step(self, kind, p_accept, top1, entropy_nats, margin, judged, accepted, unsent, in_flight, committed,
             waited_ms, elapsed_ms, rtt_ms, queue_ms, memo):
        return Action.FINISH

    # Called once at the end. Returns a list of Update.
    def observe(self, outcome, params, calibration):
        return []

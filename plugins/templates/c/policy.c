// {{name}}: uses the target where it is near enough, and the draft model elsewhere.
//
// bindings.h is made from the contract when the component is built. Lists that an export returns are on the heap: the
// bindings free them. Arguments belong to the callee, which frees them.

#include <stdlib.h>
#include <string.h>

#include "bindings.h"

enum { TARGET = 2, MEDIA_AT_EDGE = 2 };

// The row of the first target that is near enough, 0 for none.
static uint32_t near_target(const exports_msao_offload_policy_request_t *request,
                            const exports_msao_offload_policy_list_part_t *parts,
                            const exports_msao_offload_policy_list_node_t *nodes, double rtt_limit) {
  for (size_t i = 0; i < parts->len; i += 1) {
    if (parts->ptr[i].modality != 0 && (request->flags & MEDIA_AT_EDGE) != 0) {
      return 0;
    }
  }
  for (uint32_t row = 1; row < nodes->len; row += 1) {
    const msao_offload_types_node_t *node = &nodes->ptr[row];
    if (node->up && (node->can & TARGET) != 0 && node->rtt_ms >= 0 && node->rtt_ms <= rtt_limit) {
      return row;
    }
  }
  return 0;
}

void exports_msao_offload_policy_plan(exports_msao_offload_policy_request_t *request,
                                      exports_msao_offload_policy_list_part_t *parts,
                                      exports_msao_offload_policy_list_node_t *nodes, bindings_list_f64_t *params,
                                      exports_msao_offload_policy_calibration_t *calibration,
                                      exports_msao_offload_policy_decision_t *ret) {
  // In the order of policy.toml.
  double rtt_limit = params->ptr[0];
  uint32_t peer = near_target(request, parts, nodes, rtt_limit);
  double *terms = malloc(sizeof *terms);
  if (terms == NULL) {
    abort();
  }
  terms[0] = peer > 0 ? nodes->ptr[peer].rtt_ms : -1;

  memset(ret, 0, sizeof *ret);
  ret->tag = MSAO_OFFLOAD_TYPES_DECISION_RUN;
  ret->val.run = (msao_offload_types_plan_t){
      .route = peer > 0 ? MSAO_OFFLOAD_TYPES_ROUTE_CLOUD : MSAO_OFFLOAD_TYPES_ROUTE_EDGE,
      .peer = peer,
      .mode = MSAO_OFFLOAD_TYPES_MODE_EXACT,
      .gamma_max = 4,
      .in_flight_max = 1,
      .patience_ms = 1000,
      .reason = peer > 0 ? 1 : 0,
      .terms = {terms, 1},
  };
  exports_msao_offload_policy_list_part_free(parts);
  exports_msao_offload_policy_list_node_free(nodes);
  bindings_list_f64_free(params);
  exports_msao_offload_policy_calibration_free(calibration);
}

// Called on routes `edge` and `speculate` whenever something happened.
exports_msao_offload_policy_action_t exports_msao_offload_policy_step(
    uint32_t kind, double p_accept, double top1, double entropy_nats, double margin, uint32_t judged, uint32_t accepted,
    uint32_t unsent, uint32_t in_flight, uint32_t committed, double waited_ms, double elapsed_ms, double rtt_ms,
    double queue_ms, bindings_list_u8_t *memo) {
  bindings_list_u8_free(memo);
  return EXPORTS_MSAO_OFFLOAD_POLICY_ACTION_FINISH;
}

// Called once at the end; what it returns changes the calibration.
void exports_msao_offload_policy_observe(exports_msao_offload_policy_outcome_t *outcome, bindings_list_f64_t *params,
                                         exports_msao_offload_policy_calibration_t *calibration,
                                         exports_msao_offload_policy_list_update_t *ret) {
  ret->ptr = NULL;
  ret->len = 0;
  exports_msao_offload_policy_outcome_free(outcome);
  bindings_list_f64_free(params);
  exports_msao_offload_policy_calibration_free(calibration);
}

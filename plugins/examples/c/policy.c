// The worked example: estimate how long each route would take, take the quickest, learn how wrong the estimate was.
//
// The same policy stands beside this one in Rust, JavaScript and Python. All four give the same plans to the last bit, so
// each does its arithmetic in the same order, with nothing but + - * / and comparisons.
//
// bindings.h is made from the contract when the component is built. Lists that an export returns are on the heap: the
// bindings free them. Arguments belong to the callee, which frees them.

#include <stdlib.h>
#include <string.h>

#include "bindings.h"

typedef msao_offload_types_node_t node_t;
typedef msao_offload_types_calibration_t calibration_t;

// The manifest's reasons, by number.
enum { UNKNOWN, EDGE_QUICKEST, OWN_TARGET_QUICKEST, CLOUD_QUICKEST, SPECULATION_QUICKEST };

// Bits of node.can and request.flags.
enum { DRAFT = 1, TARGET = 2, VERIFIES_OURS = 4 | 8, EXACT = 1, MEDIA_AT_EDGE = 2 };

enum {
  EDGE = MSAO_OFFLOAD_TYPES_ROUTE_EDGE,
  CLOUD = MSAO_OFFLOAD_TYPES_ROUTE_CLOUD,
  SPECULATE = MSAO_OFFLOAD_TYPES_ROUTE_SPECULATE
};

// Below this acceptance probability a draft is sent at once: what follows it would likely be wasted.
static const double DOUBTFUL = 0.3;

// The memo: the route by number, the drafts a round, and the estimate that `observe` compares with; little-endian, as
// WebAssembly's memory is.
enum { NOTE_BYTES = 13 };

typedef struct {
  uint8_t route;
  uint32_t gamma;
  double estimate_ms;
} note_t;

static void encode(note_t note, uint8_t *bytes) {
  bytes[0] = note.route;
  memcpy(bytes + 1, &note.gamma, 4);
  memcpy(bytes + 5, &note.estimate_ms, 8);
}

static bool decode(const uint8_t *bytes, size_t len, note_t *note) {
  if (len != NOTE_BYTES) {
    return false;
  }
  note->route = bytes[0];
  memcpy(&note->gamma, bytes + 1, 4);
  memcpy(&note->estimate_ms, bytes + 5, 8);
  return true;
}

static double at_least_0(double value) { return value > 0 ? value : 0; }

static double wait_ms(const node_t *node) { return at_least_0(node->queue_ms) + at_least_0(node->planned_ms); }

// The mean of what was learned under `key`, 1 where nothing was. Keys are sorted.
static double learned(const calibration_t *calibration, uint32_t key) {
  size_t low = 0;
  size_t high = calibration->keys.len;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (calibration->keys.ptr[middle] < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < calibration->keys.len && calibration->keys.ptr[low] == key ? calibration->mean.ptr[low] : 1;
}

// Tokens that a round of `gamma` drafts yields when each is accepted with probability `acceptance`.
static double yields(double acceptance, uint32_t gamma) {
  double all_accepted = 1;
  double tokens = 1;
  for (uint32_t i = 0; i < gamma; i += 1) {
    all_accepted *= acceptance;
    tokens += all_accepted;
  }
  return tokens;
}

// `candidate`, if it is less or there was none.
static double quicker(double before, double candidate) {
  return before < 0 || candidate < before ? candidate : before;
}

// The best so far.
typedef struct {
  uint8_t route;
  uint32_t peer;
  uint32_t reason;
  double estimate_ms;
  // The estimate with what leaving this node must gain; below 0: nothing was chosen.
  double compared_ms;
} choice_t;

static void offer(choice_t *choice, uint8_t route, uint32_t peer, uint32_t reason, double estimate_ms, double margin) {
  double compared_ms = estimate_ms * margin;
  if (choice->compared_ms < 0 || compared_ms < choice->compared_ms) {
    *choice = (choice_t){route, peer, reason, estimate_ms, compared_ms};
  }
}

void exports_msao_offload_policy_plan(exports_msao_offload_policy_request_t *request,
                                      exports_msao_offload_policy_list_part_t *parts,
                                      exports_msao_offload_policy_list_node_t *nodes, bindings_list_f64_t *params,
                                      exports_msao_offload_policy_calibration_t *calibration,
                                      exports_msao_offload_policy_decision_t *ret) {
  double margin = params->ptr[0];
  uint32_t gamma = (uint32_t)params->ptr[1];
  const node_t *here = &nodes->ptr[0];
  double prompt = request->prompt_tokens;
  double tokens = request->max_tokens;
  double media_bytes = 0;
  bool has_media = false;
  for (size_t i = 0; i < parts->len; i += 1) {
    if (parts->ptr[i].modality != 0) {
      media_bytes += parts->ptr[i].bytes;
      has_media = true;
    }
  }
  bool bound = has_media && (request->flags & MEDIA_AT_EDGE) != 0;

  double edge_ms = -1;
  double cloud_ms = -1;
  double speculate_ms = -1;
  choice_t choice = {EDGE, 0, UNKNOWN, 0, -1};

  bool reads = here->prefill_tok_per_s > 0;
  bool drafts = (here->can & DRAFT) != 0 && here->draft_tok_per_s > 0;
  if (drafts && reads) {
    double read_ms = prompt * 1000 / here->prefill_tok_per_s;
    double write_ms = tokens * 1000 / here->draft_tok_per_s;
    edge_ms = (wait_ms(here) + read_ms + write_ms) * learned(calibration, EDGE);
    // The draft model's own answer is quick, and not what the target would have said.
    if ((request->flags & EXACT) == 0) {
      offer(&choice, EDGE, 0, EDGE_QUICKEST, edge_ms, 1);
    }
  }
  if ((here->can & TARGET) != 0 && here->target_tok_per_s > 0 && reads) {
    double read_ms = prompt * 1000 / here->prefill_tok_per_s;
    double write_ms = tokens * 1000 / here->target_tok_per_s;
    cloud_ms = (wait_ms(here) + read_ms + write_ms) * learned(calibration, CLOUD);
    offer(&choice, CLOUD, 0, OWN_TARGET_QUICKEST, cloud_ms, 1);
  }
  for (uint32_t row = 1; row < nodes->len; row += 1) {
    const node_t *node = &nodes->ptr[row];
    bool known = node->uplink_bps > 0 && node->rtt_ms >= 0 && node->prefill_tok_per_s > 0;
    if (!node->up || (node->can & TARGET) == 0 || !known || bound) {
      continue;
    }
    double missing_bytes = at_least_0(media_bytes - at_least_0(node->cached_bytes));
    double upload_ms = missing_bytes * 8000 / node->uplink_bps;
    double read_ms = prompt * 1000 / node->prefill_tok_per_s;
    double begins_ms = node->rtt_ms + wait_ms(node) + upload_ms + read_ms;
    if (node->target_tok_per_s > 0) {
      double write_ms = tokens * 1000 / node->target_tok_per_s;
      double estimate_ms = (begins_ms + write_ms) * learned(calibration, CLOUD);
      cloud_ms = quicker(cloud_ms, estimate_ms);
      offer(&choice, CLOUD, row, CLOUD_QUICKEST, estimate_ms, margin);
    }
    bool verifies = (node->can & VERIFIES_OURS) == VERIFIES_OURS;
    if (drafts && verifies && node->verify_ms > 0 && node->acceptance >= 0) {
      double draft_ms = gamma * 1000.0 / here->draft_tok_per_s;
      double round_ms = draft_ms + node->rtt_ms + wait_ms(node) + node->verify_ms;
      double write_ms = tokens * round_ms / yields(node->acceptance, gamma);
      double estimate_ms = (begins_ms + write_ms) * learned(calibration, SPECULATE);
      speculate_ms = quicker(speculate_ms, estimate_ms);
      offer(&choice, SPECULATE, row, SPECULATION_QUICKEST, estimate_ms, margin);
    }
  }
  if (choice.compared_ms < 0) {
    if ((here->can & TARGET) != 0) {
      choice.route = CLOUD;
    }
    for (uint32_t row = 1; row < nodes->len && choice.route == EDGE; row += 1) {
      if (nodes->ptr[row].up && (nodes->ptr[row].can & TARGET) != 0 && !bound) {
        choice.route = CLOUD;
        choice.peer = row;
      }
    }
  }

  double *terms = malloc(3 * sizeof *terms);
  uint8_t *memo = malloc(NOTE_BYTES);
  if (terms == NULL || memo == NULL) {
    abort();
  }
  terms[0] = edge_ms;
  terms[1] = cloud_ms;
  terms[2] = speculate_ms;
  encode((note_t){choice.route, gamma, choice.estimate_ms}, memo);

  memset(ret, 0, sizeof *ret);
  ret->tag = MSAO_OFFLOAD_TYPES_DECISION_RUN;
  ret->val.run = (msao_offload_types_plan_t){
      .route = choice.route,
      .peer = choice.peer,
      .mode = MSAO_OFFLOAD_TYPES_MODE_EXACT,
      .gamma_max = gamma,
      .in_flight_max = 1,
      .patience_ms = 1000,
      .memo = {memo, NOTE_BYTES},
      .reason = choice.reason,
      .terms = {terms, 3},
  };
  exports_msao_offload_policy_list_part_free(parts);
  exports_msao_offload_policy_list_node_free(nodes);
  bindings_list_f64_free(params);
  exports_msao_offload_policy_calibration_free(calibration);
}

exports_msao_offload_policy_action_t exports_msao_offload_policy_step(
    uint32_t kind, double p_accept, double top1, double entropy_nats, double margin, uint32_t judged, uint32_t accepted,
    uint32_t unsent, uint32_t in_flight, uint32_t committed, double waited_ms, double elapsed_ms, double rtt_ms,
    double queue_ms, bindings_list_u8_t *memo) {
  // A fallback plan has no note: it speculates with four drafts a round.
  note_t note = {SPECULATE, 4, 0};
  decode(memo->ptr, memo->len, &note);
  bindings_list_u8_free(memo);
  if (note.route == EDGE || kind == 3 || kind == 5) {
    return EXPORTS_MSAO_OFFLOAD_POLICY_ACTION_FINISH;
  }
  if (kind == 2 || in_flight >= note.gamma) {
    return EXPORTS_MSAO_OFFLOAD_POLICY_ACTION_WAIT;
  }
  if (unsent >= note.gamma || (unsent > 0 && p_accept < DOUBTFUL)) {
    return EXPORTS_MSAO_OFFLOAD_POLICY_ACTION_SEND;
  }
  return EXPORTS_MSAO_OFFLOAD_POLICY_ACTION_DRAFT;
}

void exports_msao_offload_policy_observe(exports_msao_offload_policy_outcome_t *outcome, bindings_list_f64_t *params,
                                         exports_msao_offload_policy_calibration_t *calibration,
                                         exports_msao_offload_policy_list_update_t *ret) {
  double weight = params->ptr[2];
  note_t note;
  ret->ptr = NULL;
  ret->len = 0;
  if (decode(outcome->memo.ptr, outcome->memo.len, &note) && outcome->status == 0 && outcome->route == note.route &&
      outcome->total_ms > 0 && note.estimate_ms > 0) {
    ret->ptr = malloc(sizeof *ret->ptr);
    if (ret->ptr == NULL) {
      abort();
    }
    ret->ptr[0] = (msao_offload_types_update_t){
        .operation = MSAO_OFFLOAD_TYPES_OPERATION_SAMPLE,
        .key = note.route,
        .value = outcome->total_ms / note.estimate_ms,
        .weight = weight,
    };
    ret->len = 1;
  }
  exports_msao_offload_policy_outcome_free(outcome);
  bindings_list_f64_free(params);
  exports_msao_offload_policy_calibration_free(calibration);
}

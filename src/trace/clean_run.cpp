#include "rometrace/trace/clean_run.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "rometrace/error.hpp"
#include "rometrace/trace/patch.hpp"
#include "trace/readout.hpp"
#include "trace/recorder.hpp"

namespace rometrace {
namespace {

void refuse_unless_known(const Decoder& model, std::int32_t id, const char* what) {
  const auto V = model.config().vocab_size;
  if (id >= 0 && id < V) return;
  throw Error(std::string(what) + " token id " + std::to_string(id) + " is outside the model's vocabulary of " +
              std::to_string(V) + "; the tokeniser does not belong to this model");
}

// What the engines will read of the clean run.
Recorder recorder(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options, std::int64_t tokens) {
  const bool noising = options.direction == Direction::kNoising;
  const auto has = [&](Kind kind) {
    return std::find(options.kinds.begin(), options.kinds.end(), kind) != options.kinds.end();
  };
  Recorder::Shape shape;
  shape.tokens = tokens;
  shape.first = prompt.first_corrupted();
  shape.inputs = has(Kind::kKnockout) ? tokens : shape.first + 1;
  return {model, shape, noising ? severed_sites(options.kinds) : sites_of(options.kinds)};
}

}  // namespace

CleanRun run_clean(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options, std::stop_token stop) {
  const at::NoGradGuard no_grad;
  for (const auto id : prompt.target) refuse_unless_known(model, id, "the target's");
  for (const auto id : prompt.other_targets) refuse_unless_known(model, id, "a target's");
  if (prompt.foil) refuse_unless_known(model, *prompt.foil, "the foil's");
  CleanRun run;
  run.token_ids = prompt.token_ids;
  if (!prompt.target.empty()) {
    run.token_ids.insert(run.token_ids.end(), prompt.target.begin(), prompt.target.end() - 1);
  }
  const auto T = static_cast<std::int64_t>(prompt.token_ids.size()), K = prompt.answer_tokens();
  if (K > 1 && T + K - 1 > model.config().max_positions) {
    throw Error("the prompt has " + std::to_string(T) + " tokens and the answer " + std::to_string(K) +
                "; this model takes " + std::to_string(model.config().max_positions + 1) + " together");
  }
  auto record = recorder(model, prompt, options, T + K - 1);
  const auto hidden = model.forward(run.token_ids, 1, [&](Site site, std::int64_t layer, at::Tensor& value) {
    if (stop.stop_requested()) throw Interrupted();
    record(site, layer, value);
  });
  run.recording = record.recording();
  const auto logits = model.logits(hidden.slice(1, T - 1));  // [1, K, V]
  const auto log_p = at::log_softmax(logits[0][0], -1, at::kDouble);
  if (!std::isfinite(log_p.exp().sum().item<double>())) {
    throw Error(
        "the model's output for this prompt is NaN or infinite: its weights are damaged, or too large for the dtype");
  }
  run.log_probabilities = log_p;
  auto& trace = run.trace;
  trace.prediction_id = log_p.argmax().item<std::int32_t>();
  trace.prediction_score = log_p[trace.prediction_id].exp().item<double>();
  trace.answer_ids = prompt.target.empty() ? std::vector{trace.prediction_id} : prompt.target;
  constexpr auto kNone = std::numeric_limits<double>::quiet_NaN();
  const auto readings = readings_of(prompt, options);
  const auto values = read_logits(logits, Question(prompt, run), readings);
  trace.high_score = values.front();
  for (std::size_t i = 0; i < readings.size(); ++i) {
    trace.measured.push_back({readings[i], values[i + 1], kNone, kNone});
  }
  trace.low_score = trace.low_standard_error = trace.largest_error = kNone;
  trace.tokens = T;
  trace.layers = model.config().layers;
  return run;
}

std::vector<std::int32_t> greedy_answer(const Decoder& model, const TracePrompt& prompt, std::int64_t most,
                                        const std::function<bool(std::int32_t)>& ends, std::stop_token stop) {
  const at::NoGradGuard no_grad;
  auto token_ids = prompt.token_ids;
  std::vector<std::int32_t> answer;
  while (static_cast<std::int64_t>(answer.size()) < most) {
    const auto T = static_cast<std::int64_t>(token_ids.size());
    if (!answer.empty() && T > model.config().max_positions) break;
    const auto hidden = model.forward_prompts(token_ids, T, [&](Site, std::int64_t, at::Tensor&) {
      if (stop.stop_requested()) throw Interrupted();
    });
    const auto next = model.logits(hidden[0]).argmax().item<std::int32_t>();
    if (!answer.empty() && ends(next)) break;
    answer.push_back(next);
    token_ids.push_back(next);
  }
  return answer;
}

}  // namespace rometrace

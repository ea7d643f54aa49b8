#include "rometrace/trace/clean_run.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/softmax.h>

#include <cmath>
#include <limits>
#include <string>

#include "rometrace/error.hpp"
#include "rometrace/trace/patch.hpp"

namespace rometrace {

CleanRun run_clean(const Gpt2& model, const TracePrompt& prompt, const TraceOptions& options, std::stop_token stop) {
  const at::NoGradGuard no_grad;
  const auto& config = model.config();
  if (options.target && (*options.target < 0 || *options.target >= config.vocab_size)) {
    throw Error("the target's token id " + std::to_string(*options.target) + " is outside the model's vocabulary of " +
                std::to_string(config.vocab_size) + "; the tokeniser does not belong to this model");
  }
  const auto L = config.n_layer, T = static_cast<std::int64_t>(prompt.token_ids.size());
  const auto b = static_cast<std::int64_t>(prompt.subject_range.begin);
  const auto of_each_layer = [&](std::int64_t positions) {
    return at::empty({L, positions, config.n_embd}, at::device(model.device()).dtype(model.stream_dtype()));
  };
  CleanRun run;
  run.inputs = of_each_layer(b + 1);
  for (const Kind kind : options.kinds) run.outputs.emplace(site_of(kind), of_each_layer(T - b));
  const auto hidden = model.forward(prompt.token_ids, 1, [&](Site site, std::int64_t layer, at::Tensor& value) {
    if (stop.stop_requested()) throw Interrupted();
    const auto up_to_subject = value[0].slice(0, 0, b + 1);
    if (site == Site::kEmbedding) run.inputs[0].copy_(up_to_subject + model.position_embeddings(b + 1));
    if (site == Site::kState && layer + 1 < L) run.inputs[layer + 1].copy_(up_to_subject);
    if (const auto found = run.outputs.find(site); found != run.outputs.end()) {
      found->second[layer].copy_(value[0].slice(0, b));
    }
  });
  const auto scores = at::softmax(model.logits(hidden[0][T - 1]), -1, at::kDouble).cpu();  // [V]
  if (!std::isfinite(scores.sum().item<double>())) {
    throw Error(
        "the model's output for this prompt is NaN or infinite: its weights are damaged, or too large for the dtype");
  }
  auto& trace = run.trace;
  trace.prediction_id = scores.argmax().item<std::int32_t>();
  trace.answer_id = options.target.value_or(trace.prediction_id);
  trace.prediction_score = scores[trace.prediction_id].item<double>();
  trace.high_score = scores[trace.answer_id].item<double>();
  trace.low_score = trace.low_standard_error = std::numeric_limits<double>::quiet_NaN();
  trace.tokens = T;
  trace.layers = L;
  return run;
}

}  // namespace rometrace

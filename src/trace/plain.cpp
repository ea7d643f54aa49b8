#include "rometrace/trace/plain.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/softmax.h>

#include <utility>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/trace/patch.hpp"
#include "trace/corruption.hpp"
#include "trace/draws.hpp"

namespace rometrace {
namespace {

// The corrupted runs that a trace of one prompt is made of.
class Runs {
 public:
  Runs(const Gpt2& model, const TracePrompt& prompt, const TraceOptions& options, const CleanRun& clean,
       std::stop_token stop)
      : model_(model),
        prompt_(prompt),
        options_(options),
        clean_(clean),
        corruption_(model, prompt, options),
        stop_(std::move(stop)) {}

  // The answer's probability, with the subject corrupted and nothing restored.
  MeanAndError corrupted() const {
    return run([](Site, std::int64_t, at::Tensor&) {});
  }

  // Likewise, with clean outputs put back.
  MeanAndError restored(const Patch& patch) const {
    return run([&](Site site, std::int64_t layer, at::Tensor& value) {
      if (site != patch.site || layer < patch.layers.begin || layer >= patch.layers.end) return;
      value.select(1, patch.position).copy_(clean_.output(patch.site, layer, patch.position));
    });
  }

 private:
  MeanAndError run(const Tap& tap) const {
    const auto corrupt_and_tap = [&](Site site, std::int64_t layer, at::Tensor& value) {
      if (stop_.stop_requested()) throw Interrupted();
      if (site == Site::kEmbedding) corruption_.apply(value);
      tap(site, layer, value);
    };
    const auto hidden = model_.forward(prompt_.token_ids, options_.samples, corrupt_and_tap);
    const auto logits = model_.logits(hidden.select(1, hidden.size(1) - 1));  // [N, V]
    const auto scores = at::softmax(logits, -1, at::kDouble).select(1, clean_.trace.answer_id).contiguous().cpu();
    const std::span<const double> draws(scores.data_ptr<double>(), static_cast<std::size_t>(scores.numel()));
    check_finite(draws, options_);
    return mean_and_error(draws);
  }

  const Gpt2& model_;
  const TracePrompt& prompt_;
  const TraceOptions& options_;
  const CleanRun& clean_;
  Corruption corruption_;
  std::stop_token stop_;
};

}  // namespace

Trace trace_plain(const Gpt2& model, const TracePrompt& prompt, const TraceOptions& options, const CleanRun& clean,
                  const RunControl& control) {
  const at::NoGradGuard no_grad;
  Trace trace = clean.trace;
  const Runs runs(model, prompt, options, clean, control.stop);
  const auto low = runs.corrupted();
  trace.low_score = low.mean;
  trace.low_standard_error = low.standard_error;

  const auto first = static_cast<std::int64_t>(prompt.subject_range.begin);
  const auto total = static_cast<std::int64_t>(options.kinds.size()) * (trace.tokens - first) * trace.layers;
  std::int64_t done = 0;
  if (control.progress) control.progress(done, total);
  for (const Kind kind : options.kinds) {
    auto grid = empty_grid(kind, options, trace);
    for (std::int64_t position = first; position < trace.tokens; ++position) {
      for (std::int64_t layer = 0; layer < trace.layers; ++layer) {
        const auto cell = runs.restored(patch_of(kind, position, layer, options.window, trace.layers));
        const auto index = static_cast<std::size_t>(position * trace.layers + layer);
        grid.scores[index] = cell.mean;
        grid.standard_error[index] = cell.standard_error;
        if (control.progress) control.progress(++done, total);
      }
    }
    trace.grids.push_back(std::move(grid));
  }
  return trace;
}

}  // namespace rometrace

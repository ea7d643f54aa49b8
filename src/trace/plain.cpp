#include "rometrace/trace/plain.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/softmax.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "rometrace/error.hpp"

namespace rometrace {
namespace {

Site site_of(Kind kind) {
  switch (kind) {
    case Kind::kState:
      return Site::kState;
    case Kind::kMlp:
      return Site::kMlp;
    case Kind::kAttn:
      return Site::kAttn;
  }
  TORCH_INTERNAL_ASSERT(false, "kind not handled");
}

std::string shortest(double value) {
  std::array<char, 32> digits{};
  return {digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr};
}

struct MeanAndError {
  double mean = 0;
  double standard_error = 0;  // NaN for a single value
};

MeanAndError mean_and_error(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  if (values.size() < 2) return {mean, std::numeric_limits<double>::quiet_NaN()};
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return {mean, std::sqrt(squares / (n - 1) / n)};
}

// What one cell restores: at `position`, the clean outputs of `site` in `layers`.
struct Restoration {
  Site site;
  LayerRange layers;
  std::int64_t position;
};

// The runs that a trace of one prompt is made of.
class Runs {
 public:
  Runs(const Gpt2& model, const TracePrompt& prompt, const TraceOptions& options, std::stop_token stop)
      : model_(model), prompt_(prompt), options_(options), stop_(std::move(stop)) {
    const auto subject = static_cast<std::int64_t>(prompt.subject_range.end - prompt.subject_range.begin);
    auto noise =
        draw_noise(options.distribution, options.sigma, options.seed, options.samples, subject, model.config().n_embd);
    noise_ = at::from_blob(noise.data(), {options.samples, subject, model.config().n_embd}, at::kDouble)
                 .clone()
                 .to(model.device());
  }

  // The clean outputs of `site` in every layer, [L, T, D].
  at::Tensor clean_outputs(Site site) const {
    const auto& config = model_.config();
    const auto T = static_cast<std::int64_t>(prompt_.token_ids.size());
    auto outputs = at::empty({config.n_layer, T, config.n_embd}, at::device(model_.device()).dtype(model_.dtype()));
    model_.forward(prompt_.token_ids, 1, [&](Site at, std::int64_t layer, at::Tensor& value) {
      if (at == site) outputs[layer].copy_(value[0]);
    });
    return outputs;
  }

  // The answer's probability for each noise draw, with the subject corrupted and nothing restored.
  std::vector<double> corrupted(std::int32_t answer) const {
    return run(answer, [this](Site at, std::int64_t, at::Tensor& value) {
      if (at == Site::kEmbedding) corrupt(value);
    });
  }

  // Likewise, with the clean outputs ([L, T, D], of the restoration's site) put back.
  std::vector<double> restored(std::int32_t answer, const at::Tensor& clean, const Restoration& what) const {
    return run(answer, [&](Site at, std::int64_t layer, at::Tensor& value) {
      if (at == Site::kEmbedding) corrupt(value);
      if (at == what.site && what.layers.begin <= layer && layer < what.layers.end) {
        value.select(1, what.position).copy_(clean[layer][what.position]);
      }
    });
  }

 private:
  // `embedding` [N, T, D], in place. Added in double and rounded once, as the reference does.
  void corrupt(at::Tensor& embedding) const {
    const auto subject = embedding.slice(1, static_cast<std::int64_t>(prompt_.subject_range.begin),
                                         static_cast<std::int64_t>(prompt_.subject_range.end));
    subject.copy_(options_.replace ? noise_ : subject.to(at::kDouble) + noise_);
  }

  std::vector<double> run(std::int32_t answer, const Tap& tap) const {
    const auto stoppable = [&](Site at, std::int64_t layer, at::Tensor& value) {
      if (stop_.stop_requested()) throw Interrupted();
      tap(at, layer, value);
    };
    const auto hidden = model_.forward(prompt_.token_ids, options_.samples, stoppable);
    const auto logits = model_.logits(hidden.select(1, hidden.size(1) - 1));  // [N, V]
    const auto scores = at::softmax(logits, -1, at::kDouble).select(1, answer).contiguous().cpu();
    std::vector<double> values(scores.data_ptr<double>(), scores.data_ptr<double>() + scores.numel());
    if (!std::all_of(values.begin(), values.end(), [](double value) { return std::isfinite(value); })) {
      throw Error("a corrupted run ends in NaN or infinity: noise of scale " + shortest(options_.sigma) +
                  " is too large for this model and dtype; choose a smaller one");
    }
    return values;
  }

  const Gpt2& model_;
  const TracePrompt& prompt_;
  const TraceOptions& options_;
  std::stop_token stop_;
  at::Tensor noise_;  // [N, e - b, D], double, scaled
};

CausalGrid empty_grid(Kind kind, const TraceOptions& options, const Trace& trace) {
  CausalGrid grid;
  grid.kind = kind;
  grid.window = kind == Kind::kState ? 1 : options.window;
  // Cells before the subject keep these values.
  grid.scores.assign(static_cast<std::size_t>(trace.tokens * trace.layers), trace.low_score);
  grid.standard_error.assign(grid.scores.size(), trace.low_standard_error);
  return grid;
}

}  // namespace

Trace run_clean(const Gpt2& model, const TracePrompt& prompt, const TraceOptions& options) {
  const at::NoGradGuard no_grad;
  if (options.target && (*options.target < 0 || *options.target >= model.config().vocab_size)) {
    throw Error("the target's token id " + std::to_string(*options.target) + " is outside the model's vocabulary of " +
                std::to_string(model.config().vocab_size) + "; the tokeniser does not belong to this model");
  }
  const auto hidden = model.forward(prompt.token_ids, 1);
  const auto logits = model.logits(hidden[0][hidden.size(1) - 1]);  // [V]
  const auto scores = at::softmax(logits, -1, at::kDouble).cpu();
  if (!std::isfinite(scores.sum().item<double>())) {
    throw Error(
        "the model's output for this prompt is NaN or infinite: its weights are damaged, or too large for the dtype");
  }
  Trace trace;
  trace.prediction_id = scores.argmax().item<std::int32_t>();
  trace.answer_id = options.target.value_or(trace.prediction_id);
  trace.prediction_score = scores[trace.prediction_id].item<double>();
  trace.high_score = scores[trace.answer_id].item<double>();
  trace.low_score = trace.low_standard_error = std::numeric_limits<double>::quiet_NaN();
  trace.tokens = static_cast<std::int64_t>(prompt.token_ids.size());
  trace.layers = model.config().n_layer;
  return trace;
}

Trace trace_plain(const Gpt2& model, const TracePrompt& prompt, const TraceOptions& options, const Progress& progress,
                  std::stop_token stop) {
  const at::NoGradGuard no_grad;
  Trace trace = run_clean(model, prompt, options);
  const Runs runs(model, prompt, options, stop);
  const auto low = mean_and_error(runs.corrupted(trace.answer_id));
  trace.low_score = low.mean;
  trace.low_standard_error = low.standard_error;

  const auto first = static_cast<std::int64_t>(prompt.subject_range.begin);
  const auto total = static_cast<std::int64_t>(options.kinds.size()) * (trace.tokens - first) * trace.layers;
  std::int64_t done = 0;
  if (progress) progress(done, total);
  for (const Kind kind : options.kinds) {
    auto grid = empty_grid(kind, options, trace);
    const auto clean = runs.clean_outputs(site_of(kind));
    for (std::int64_t position = first; position < trace.tokens; ++position) {
      for (std::int64_t layer = 0; layer < trace.layers; ++layer) {
        const Restoration what{site_of(kind), window_of(layer, grid.window, trace.layers), position};
        const auto cell = mean_and_error(runs.restored(trace.answer_id, clean, what));
        const auto index = static_cast<std::size_t>(position * trace.layers + layer);
        grid.scores[index] = cell.mean;
        grid.standard_error[index] = cell.standard_error;
        if (progress) progress(++done, total);
      }
    }
    trace.grids.push_back(std::move(grid));
  }
  return trace;
}

}  // namespace rometrace

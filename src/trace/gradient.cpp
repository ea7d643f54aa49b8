#include "rometrace/trace/gradient.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/trace/patch.hpp"
#include "trace/both_directions.hpp"
#include "trace/corruption.hpp"
#include "trace/draws.hpp"
#include "trace/recorder.hpp"
#include "trace/taped_answer.hpp"

namespace rometrace {
namespace {

void refuse_unsupported(const TracePrompt& prompt, const TraceOptions& options) {
  for (const Kind kind : options.kinds) {
    if (kind == Kind::kState || kind == Kind::kMlp || kind == Kind::kAttn || kind == Kind::kHead) continue;
    throw Error("gradients do not approximate " + std::string(to_string(kind)) +
                "; expected state, mlp, attn or head, or another engine");
  }
  if (!options.measures.empty() || !prompt.other_targets.empty()) {
    throw Error("gradients follow the probability of one answer; measures and other targets need another engine");
  }
  if (options.precision) {
    throw Error("more draws make gradients no better an approximation; a precision needs another engine");
  }
}

// A draw's share of what is held while its effects are computed: by site, outputs in all layers.
std::int64_t recorded_bytes(const Decoder& model, std::int64_t tokens, std::size_t sites) {
  const auto& config = model.config();
  const auto widest = std::max(config.width, config.mixed_width());
  return config.layers * tokens * static_cast<std::int64_t>(sites) * widest *
         static_cast<std::int64_t>(at::elementSize(model.stream_dtype()));
}

// What changes of outputs change of an answer's probability, to first order, by site: [draws, L, T - b, G] in double,
// where G parts of an output (the heads) count apart.
using Effects = std::map<Site, at::Tensor>;

// The one run whose derivatives serve all draws: by site and layer, [1, T - b, D].
struct Differentiated {
  at::Tensor probability;  // [1] of the answer, in double
  std::map<Site, std::vector<at::Tensor>> outputs, derivatives;
};

// The runs of one prompt.
class GradientRuns {
 public:
  GradientRuns(const Decoder& model, const CleanRun& clean, std::vector<Site> sites, std::stop_token stop)
      : model_(model), clean_(clean), sites_(std::move(sites)), stop_(std::move(stop)) {}

  Differentiated clean(LayerTape::Graphs graphs) const {
    Differentiated run;
    const auto layers = static_cast<std::size_t>(model_.config().layers);
    for (const Site site : sites_) {
      run.outputs[site].resize(layers);
      run.derivatives[site].resize(layers);
    }
    run.probability = differentiate(model_.enter(embeddings(1)), graphs, [&](std::int64_t layer, const auto& marked) {
      run.outputs[marked.site][static_cast<std::size_t>(layer)] = of_prompt(marked.value).clone();
      run.derivatives[marked.site][static_cast<std::size_t>(layer)] = of_prompt(marked.derivative).clone();
    });
    return run;
  }

  // The answer's probability [draws] in corrupted runs, and the effects of putting outputs of `other` into them.
  std::pair<at::Tensor, Effects> into_corrupted(std::int64_t draws, const Corruption& corruption,
                                                const Recording& other, LayerTape::Graphs graphs) const {
    auto effects = no_effects(draws);
    const auto x = embeddings(draws);
    corruption.apply(x);
    const auto p = differentiate(model_.enter(x), graphs, [&](std::int64_t layer, const auto& marked) {
      const auto put_in = of_prompt(other.outputs.at(marked.site)[layer], other.first);
      const auto change = put_in.to(at::kDouble) - of_prompt(marked.value).to(at::kDouble);
      put(marked.site, layer, change, of_prompt(marked.derivative), effects);
    });
    for (auto& [site, effect] : effects) effect.mul_(p.view({-1, 1, 1, 1}).cpu());
    return {p, std::move(effects)};
  }

  // Leaves the outputs in `recorder`; the result is the probability [draws].
  at::Tensor corrupted(std::int64_t draws, const Corruption& corruption, Recorder& recorder) const {
    const auto hidden = model_.forward(clean_.token_ids, draws, [&](Site site, std::int64_t layer, at::Tensor& value) {
      if (stop_.stop_requested()) throw Interrupted();
      if (site == Site::kEmbedding) corruption.apply(value);
      recorder(site, layer, value);
    });
    return at::exp(answer_log_probability(model_, clean_, hidden, stop_));
  }

  // The effects of putting outputs of corrupted runs into `run`.
  Effects from_corrupted(std::int64_t draws, const Recording& other, const Differentiated& run) const {
    auto effects = no_effects(draws);
    for (auto& [site, effect] : effects) {
      for (std::int64_t layer = 0; layer < model_.config().layers; ++layer) {
        const auto i = static_cast<std::size_t>(layer);
        const auto put_in = of_prompt(other.outputs.at(site)[layer], other.first);
        const auto change = put_in.to(at::kDouble) - run.outputs.at(site)[i].to(at::kDouble);
        put(site, layer, change, run.derivatives.at(site)[i], effects);
      }
      effect.mul_(run.probability.cpu());
    }
    return effects;
  }

 private:
  // Positions `first` .. T - 1 of [S, T + K - 1 - from, D], which begins at position `from`.
  at::Tensor of_prompt(const at::Tensor& value, std::int64_t from = 0) const {
    return value.slice(1, clean_.recording.first - from, clean_.trace.tokens - from);
  }

  at::Tensor embeddings(std::int64_t rows) const {
    return model_.embed(clean_.token_ids).unsqueeze(0).repeat({rows, 1, 1});
  }

  // `x` enters the first layer. `visit` is told of the sites' outputs, layers downwards; the result is the
  // probability, which is known only after that.
  template <class Visit>
  at::Tensor differentiate(at::Tensor x, LayerTape::Graphs graphs, const Visit& visit) const {
    TapedAnswer answer(model_, clean_, graphs, stop_);
    const auto log_p = answer.run(std::move(x), 0, [this](Site site, std::int64_t, at::Tensor& value, LayerTape& tape) {
      if (std::find(sites_.begin(), sites_.end(), site) != sites_.end()) tape.mark(site, value);
    });
    if (!sites_.empty()) {
      answer.backward([&](std::int64_t layer, std::span<const LayerTape::Marked> values) {
        for (const auto& marked : values) visit(layer, marked);
      });
    }
    return at::exp(log_p);
  }

  Effects no_effects(std::int64_t draws) const {
    Effects effects;
    for (const Site site : sites_) {
      const auto G = site == Site::kMixed ? model_.config().heads : 1;
      const auto positions = clean_.trace.tokens - clean_.recording.first;
      effects[site] = at::zeros({draws, model_.config().layers, positions, G}, at::kDouble);
    }
    return effects;
  }

  // Of one layer: change [S, T - b, D] times derivative [S or 1, T - b, D].
  static void put(Site site, std::int64_t layer, const at::Tensor& change, const at::Tensor& derivative,
                  Effects& effects) {
    auto of_layer = effects.at(site).select(1, layer);
    of_layer.copy_((change * derivative.to(at::kDouble)).unflatten(-1, {of_layer.size(-1), -1}).sum(-1));
  }

  const Decoder& model_;
  const CleanRun& clean_;
  std::vector<Site> sites_;
  std::stop_token stop_;
};

std::vector<double> numbers_of(const at::Tensor& column) {
  const auto numbers = column.contiguous().cpu();
  return {numbers.const_data_ptr<double>(), numbers.const_data_ptr<double>() + numbers.numel()};
}

// A cell's score in each draw; `base` is that of the base run, of each.
std::vector<double> scores_of(const Patch& patch, const std::map<Site, at::Tensor>& effects, std::int64_t first,
                              std::vector<double> base) {
  const auto& change = patch.changes.front();
  const auto effect = effects.at(change.site).accessor<double, 4>();
  for (std::size_t draw = 0; draw < base.size(); ++draw) {
    const auto of_draw = effect[static_cast<std::int64_t>(draw)];
    for (auto layer = change.layers.begin; layer < change.layers.end; ++layer) {
      base[draw] += of_draw[layer][patch.position - first][change.head.value_or(0)];
    }
  }
  return base;
}

}  // namespace

Trace trace_gradient(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options,
                     const CleanRun& clean, const RunControl& control) {
  if (options.direction == Direction::kBoth) {
    return trace_in_both(options, control, [&](const TraceOptions& one, const RunControl& half) {
      return trace_gradient(model, prompt, one, clean, half);
    });
  }
  refuse_unsupported(prompt, options);
  const at::NoGradGuard no_grad;
  const auto cells = cells_of(prompt, options, model.config());
  const auto sites = cells.empty() ? std::vector<Site>() : sites_of(options.kinds);
  const auto tokens = static_cast<std::int64_t>(clean.token_ids.size()), first = clean.recording.first;
  const GradientRuns runs(model, clean, sites, control.stop);
  const bool noising = options.direction == Direction::kNoising;
  const auto plan = plan_backward(model, tokens, model.config().layers, noising ? 1 : options.samples, control.memory);
  // When noising, the draws have no backward of their own, and are recorded.
  const auto most =
      noising ? std::max<std::int64_t>(
                    1, control.memory / std::max<std::int64_t>(1, recorded_bytes(model, tokens, sites.size())))
              : plan.rows;
  if (control.progress) control.progress(0, options.samples);
  std::optional<Differentiated> base;
  if (noising) base = runs.clean(plan.graphs);  // the same for all draws

  TraceTally tally(cells.size(), 0);
  while (tally.draws() < options.samples && !tally.fault()) {
    const auto draws = std::min(most, options.samples - tally.draws());
    const Corruption corruption(model, options.corruption, prompt.subject_range, prompt.counter_ids, tally.draws(),
                                draws);
    Effects effects;
    std::vector<double> low, scores;
    if (noising) {
      Recorder recorder(model, {draws, tokens, first, 0}, sites);
      low = numbers_of(runs.corrupted(draws, corruption, recorder));
      scores.assign(low.size(), clean.trace.high_score);
      effects = runs.from_corrupted(draws, recorder.recording(), *base);
    } else {
      at::Tensor p;
      std::tie(p, effects) = runs.into_corrupted(draws, corruption, clean.recording, plan.graphs);
      low = scores = numbers_of(p);
    }
    tally.add_corrupted(low, options);
    for (std::size_t i = 0; i < cells.size(); ++i) {
      tally.add_run(i, scores_of(cells[i].patch, effects, first, scores), options);
    }
    tally.end_step(draws);
    if (control.progress) control.progress(tally.draws(), options.samples);
  }
  return trace_of_cells(cells, prompt, options, model.config(), clean.trace, tally);
}

}  // namespace rometrace

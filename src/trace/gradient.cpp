#include "rometrace/trace/gradient.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/trace/patch.hpp"
#include "trace/corruption.hpp"
#include "trace/draws.hpp"
#include "trace/recorder.hpp"

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

// How many draws go through the model together.
std::int64_t draws_at_once(const Decoder& model, std::int64_t tokens, std::int64_t answer_tokens, std::int64_t memory) {
  const auto& config = model.config();
  const auto number = static_cast<std::int64_t>(at::elementSize(model.stream_dtype()));
  // What a layer keeps of a token for the backward, outputs of the sites and their gradients among it; and of an
  // answer's token logits, their log-softmax and gradients in double.
  const auto layer = (16 * config.width + (config.gated_mlp ? 3 : 1) * config.mlp_width) * number;
  const auto head = 4 * config.vocab_size * static_cast<std::int64_t>(sizeof(double));
  const auto draw = config.layers * tokens * layer + answer_tokens * head;
  return std::max<std::int64_t>(1, memory / draw);
}

// Of some draws of a run.
struct Differentiated {
  at::Tensor probability;  // [S] of the answer, in double
  // By site and layer, [S, T - b, D]. The derivatives are those of the logarithm of the probability: the probability's
  // own, where it is tiny, would be rounded away in half-precision products.
  std::map<Site, std::vector<at::Tensor>> outputs, derivatives;
};

// The runs of one prompt.
class GradientRuns {
 public:
  GradientRuns(const Decoder& model, const CleanRun& clean, std::vector<Site> sites, std::stop_token stop)
      : model_(model), clean_(clean), sites_(std::move(sites)), stop_(std::move(stop)) {
    const auto& ids = clean.trace.answer_ids;
    answer_ = at::tensor(std::vector<std::int64_t>(ids.begin(), ids.end())).to(model.device()).view({1, -1, 1});
  }

  Differentiated clean() const {
    return differentiated(1, [](at::Tensor&) {});
  }

  Differentiated corrupted(std::int64_t draws, const Corruption& corruption) const {
    return differentiated(draws, [&](at::Tensor& embeddings) { corruption.apply(embeddings); });
  }

  // Leaves the outputs in `recorder`; the result is the probability [draws].
  at::Tensor corrupted(std::int64_t draws, const Corruption& corruption, Recorder& recorder) const {
    const auto tap = [&](Site site, std::int64_t layer, at::Tensor& value) {
      if (site == Site::kEmbedding) corruption.apply(value);
      recorder(site, layer, value);
    };
    return at::exp(log_probability(draws, tap));
  }

  // What putting the outputs of `other` into the run changes of the probability, to first order, by site: [draws, L,
  // T - b, G], where G parts of an output (the heads) count apart.
  std::map<Site, at::Tensor> effects(const Recording& other, const Differentiated& run) const {
    std::map<Site, at::Tensor> effects;
    for (const Site site : sites_) {
      const auto G = site == Site::kMixed ? model_.config().heads : 1;
      std::vector<at::Tensor> layers;
      for (std::size_t layer = 0; layer < run.outputs.at(site).size(); ++layer) {
        const auto put_in = of_prompt(other.outputs.at(site)[static_cast<std::int64_t>(layer)], other.first);
        const auto change = put_in.to(at::kDouble) - run.outputs.at(site)[layer].to(at::kDouble);
        const auto products = change * run.derivatives.at(site)[layer].to(at::kDouble);
        layers.push_back(products.unflatten(-1, {G, -1}).sum(-1));
      }
      effects[site] = (at::stack(layers, 1) * run.probability.view({-1, 1, 1, 1})).cpu();
    }
    return effects;
  }

 private:
  // Positions `first` .. T - 1 of [S, T + K - 1 - from, D], which begins at position `from`.
  at::Tensor of_prompt(const at::Tensor& value, std::int64_t from = 0) const {
    return value.slice(1, clean_.recording.first - from, clean_.trace.tokens - from);
  }

  // Of the answer, [rows] in double.
  at::Tensor log_probability(std::int64_t rows, const Tap& tap) const {
    const auto hidden = model_.forward(clean_.token_ids, rows, [&](Site site, std::int64_t layer, at::Tensor& value) {
      if (stop_.stop_requested()) throw Interrupted();
      tap(site, layer, value);
    });
    const auto logits = model_.logits(hidden.slice(1, clean_.trace.tokens - 1));  // [rows, K, V]
    return at::log_softmax(logits, -1, at::kDouble).gather(2, answer_.expand({rows, -1, 1})).sum({1, 2});
  }

  template <class Corrupt>
  Differentiated differentiated(std::int64_t rows, const Corrupt& corrupt) const {
    const at::AutoGradMode with_gradients(true);
    std::vector<std::pair<Site, at::Tensor>> taken;
    const auto log_p = log_probability(rows, [&](Site site, std::int64_t, at::Tensor& value) {
      if (site == Site::kEmbedding) {
        corrupt(value);
        value.requires_grad_();
      }
      if (std::find(sites_.begin(), sites_.end(), site) != sites_.end()) taken.emplace_back(site, value);
    });
    Differentiated run;
    run.probability = at::exp(log_p.detach());
    if (taken.empty()) return run;
    std::vector<at::Tensor> outputs;
    for (const auto& [site, output] : taken) outputs.push_back(output);
    const auto derivatives = torch::autograd::grad({log_p.sum()}, outputs);
    for (std::size_t i = 0; i < taken.size(); ++i) {
      const auto site = taken[i].first;
      run.outputs[site].push_back(of_prompt(outputs[i].detach()));
      run.derivatives[site].push_back(of_prompt(derivatives[i]));
    }
    return run;
  }

  const Decoder& model_;
  const CleanRun& clean_;
  std::vector<Site> sites_;
  std::stop_token stop_;
  at::Tensor answer_;  // [1, K, 1]
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
  refuse_unsupported(prompt, options);
  const at::NoGradGuard no_grad;
  const auto cells = cells_of(prompt, options, model.config());
  const auto sites = cells.empty() ? std::vector<Site>() : sites_of(options.kinds);
  const auto tokens = static_cast<std::int64_t>(clean.token_ids.size()), first = clean.recording.first;
  const auto most = draws_at_once(model, tokens, prompt.answer_tokens(), control.memory);
  const GradientRuns runs(model, clean, sites, control.stop);
  const bool noising = options.direction == Direction::kNoising;
  if (control.progress) control.progress(0, options.samples);
  Differentiated base;
  if (noising) base = runs.clean();  // the same for all draws

  TraceTally tally(cells.size(), 0);
  while (tally.draws() < options.samples && !tally.fault()) {
    const auto draws = std::min(most, options.samples - tally.draws());
    const Corruption corruption(model, options.corruption, prompt.subject_range, prompt.counter_ids, tally.draws(),
                                draws);
    std::map<Site, at::Tensor> effects;
    std::vector<double> low, scores;
    if (noising) {
      Recorder recorder(model, {draws, tokens, first, 0}, sites);
      low = numbers_of(runs.corrupted(draws, corruption, recorder));
      scores.assign(low.size(), clean.trace.high_score);
      effects = runs.effects(recorder.recording(), base);
    } else {
      base = {};  // the last ones go before the next ones come
      base = runs.corrupted(draws, corruption);
      low = scores = numbers_of(base.probability);
      effects = runs.effects(clean.recording, base);
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

#include "trace/neuron_values.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/index_put.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <stop_token>
#include <utility>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/trace/patch.hpp"
#include "trace/corruption.hpp"
#include "trace/draws.hpp"
#include "trace/recorder.hpp"
#include "trace/taped_answer.hpp"

namespace rometrace {
namespace {

// What a backward may keep.
std::int64_t memory_for_backward(const Decoder& model, const RunControl& control) {
  constexpr std::int64_t kSmall = std::int64_t{16} << 20;
  return std::min(control.memory, std::max(kSmall, model.held_bytes() / 16));
}

// The corrupted runs of some draws.
struct CorruptedRuns {
  at::Tensor neurons;   // [layers, S, P, F] in double
  at::Tensor entering;  // the streams that enter the lowest chosen layer, [S, R, D]
};

// The values of one prompt's neurons, added up draw by draw.
class NeuronSums {
 public:
  NeuronSums(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options, const CleanRun& clean,
             const RunControl& control)
      : model_(model),
        prompt_(prompt),
        options_(options),
        clean_(clean),
        stop_(control.stop),
        layers_(layers_of(*options.neurons, model.config())),
        positions_(positions_of(options.neurons->positions, prompt)),
        position_index_(at::tensor(positions_).to(model.device())),
        memory_(memory_for_backward(model, control)),
        tally_(0, 0) {
    TORCH_INTERNAL_ASSERT(clean.recording.neurons.defined() && clean.recording.neuron_layers == layers_ &&
                              clean.recording.neuron_positions == positions_,
                          "a clean run of these neurons");
    clean_values_ = clean.recording.neurons.to(at::kDouble);
    corrupted_ = zeros();
    change_ = zeros();
    estimates_ = zeros();
  }

  NeuronValues values() {
    const auto& rule = options_.neurons->ranking;
    const bool ranked = options_.neurons->given.empty() && rule.which != NeuronRule::Which::kNone;
    const bool noising = options_.direction == Direction::kNoising;
    if (ranked && rule.which == NeuronRule::Which::kIntegrated) {
      in_groups(draws_recorded(), [&](std::int64_t draws, const Corruption& corruption) {
        integrate(corrupted(draws, corruption), draws, noising, rule.steps);
      });
    } else if (ranked && !noising) {
      const auto plan = plan_of(options_.samples);
      in_groups(plan.rows, [&](std::int64_t draws, const Corruption& corruption) {
        differentiate_corrupted(draws, corruption, plan.graphs);
      });
    } else {
      in_groups(draws_recorded(),
                [&](std::int64_t draws, const Corruption& corruption) { corrupted(draws, corruption); });
      if (ranked) differentiate_clean();
    }
    const auto N = static_cast<double>(options_.samples);
    NeuronValues found;
    found.clean = by_position(clean_values_.select(1, 0));
    found.corrupted = by_position(corrupted_ / N);
    found.change = by_position(change_ / N);
    if (ranked) found.estimates = by_position(estimates_ / N);
    for (std::size_t i = 0; i < positions_.size(); ++i) {
      if (positions_[i] >= static_cast<std::int64_t>(prompt_.first_corrupted())) continue;
      const auto p = static_cast<std::int64_t>(i);  // equal but for rounding, in batches of other sizes
      found.corrupted[p].copy_(found.clean[p]);
      found.change[p].zero_();
      if (ranked) found.estimates[p].zero_();
    }
    if (ranked && !at::isfinite(found.estimates).all().item<bool>()) {
      throw Error(
          "the derivatives by which neurons are ranked are NaN or infinite; rank by none, or choose a smaller noise or "
          "another dtype");
    }
    return found;
  }

 private:
  std::int64_t tokens() const { return static_cast<std::int64_t>(clean_.token_ids.size()); }
  std::int64_t layers() const { return layers_.end - layers_.begin; }
  std::int64_t P() const { return static_cast<std::int64_t>(positions_.size()); }

  // [layers, P, F] in double.
  at::Tensor zeros() const { return at::zeros({layers(), P(), model_.config().mlp_width}, clean_values_.options()); }

  static at::Tensor by_position(const at::Tensor& sums) { return sums.transpose(0, 1).contiguous().cpu(); }

  BackwardPlan plan_of(std::int64_t rows) const {
    return plan_backward(model_, tokens(), model_.config().layers - layers_.begin, rows, memory_);
  }

  // Draws whose values are held together: in the stream's dtype, and twice in double.
  std::int64_t draws_recorded() const {
    const auto number = static_cast<std::int64_t>(at::elementSize(model_.stream_dtype()) + 2 * sizeof(double));
    const auto draw = (layers() * P() * model_.config().mlp_width + tokens() * model_.config().width) * number;
    return std::clamp<std::int64_t>(memory_ / draw, 1, options_.samples);
  }

  template <class Run>
  void in_groups(std::int64_t most, const Run& run) {
    for (std::int64_t first = 0; first < options_.samples; first += most) {
      const auto draws = std::min(most, options_.samples - first);
      run(draws, Corruption(model_, options_.corruption, prompt_.subject_range, prompt_.counter_ids, first, draws));
    }
  }

  at::Tensor embeddings(std::int64_t rows) const {
    return model_.embed(clean_.token_ids).unsqueeze(0).repeat({rows, 1, 1});
  }

  // Streams that have passed the layers below the lowest chosen one.
  at::Tensor entering(at::Tensor embeddings) const {
    auto x = model_.enter(embeddings);
    for (std::int64_t layer = 0; layer < layers_.begin; ++layer) {
      x = model_.block(layer)->forward(std::move(x), stop_tap(), {});
    }
    return x;
  }

  Tap stop_tap() const {
    return [this](Site, std::int64_t, at::Tensor&) { look_at_stop(); };
  }

  void look_at_stop() const {
    if (stop_.stop_requested()) throw Interrupted();
  }

  // Logarithms of probabilities, [S] in double, to probabilities. Throws Error if a run's output is no number.
  at::Tensor finite(const at::Tensor& log_p) {
    const auto p = at::exp(log_p);
    const auto numbers = p.contiguous().cpu();
    tally_.add_corrupted({numbers.const_data_ptr<double>(), static_cast<std::size_t>(numbers.numel())}, options_);
    if (tally_.fault()) throw *tally_.fault();
    return p;
  }

  // Rows of [.., R, F] at the chosen positions: [S, P, F] in double.
  at::Tensor at_positions(const at::Tensor& value) const {
    return value.index_select(1, position_index_).to(at::kDouble);
  }

  // Adds values of a layer, [S, P, F], and returns clean - corrupted.
  at::Tensor add_values(std::int64_t layer, const at::Tensor& corrupted) {
    const auto l = layer - layers_.begin;
    const auto change = clean_values_[l] - corrupted;
    corrupted_[l] += corrupted.sum(0);
    change_[l] += change.abs().sum(0);
    return change;
  }

  // Runs some draws and adds their values.
  CorruptedRuns corrupted(std::int64_t draws, const Corruption& corruption) {
    const auto in_all = embeddings(draws);
    corruption.apply(in_all);
    CorruptedRuns runs;
    runs.entering = entering(in_all);
    Recorder record(model_, {draws, tokens(), 0, 0, layers_, positions_}, {});
    auto x = runs.entering;
    for (auto layer = layers_.begin; layer < model_.config().layers; ++layer) {
      const auto tap = [&](Site site, std::int64_t of, at::Tensor& value) {
        look_at_stop();
        record(site, of, value);
      };
      x = model_.block(layer)->forward(std::move(x), tap, {});
    }
    finite(answer_log_probability(model_, clean_, model_.leave(x), stop_));
    runs.neurons = record.recording().neurons.to(at::kDouble);
    for (auto layer = layers_.begin; layer < layers_.end; ++layer)
      add_values(layer, runs.neurons[layer - layers_.begin]);
    return runs;
  }

  // The derivatives of the logarithm by the neurons' values [S, P, F] in double, layers downwards, of runs that
  // `streams` enter; the result is the probability [S].
  template <class Visit>
  void differentiate(const at::Tensor& streams, LayerTape::Graphs graphs, const Visit& visit) {
    TapedAnswer answer(model_, clean_, graphs, stop_);
    const auto p = finite(
        answer.run(streams, layers_.begin, [this](Site site, std::int64_t layer, at::Tensor& value, LayerTape& tape) {
          if (site == Site::kMlpHidden && layers_.contains(layer)) tape.mark(site, value);
        }));
    answer.backward([&](std::int64_t layer, std::span<const LayerTape::Marked> values) {
      for (const auto& [site, value, derivative] : values) {
        visit(layer, at_positions(value), at_positions(derivative) * p.view({-1, 1, 1}));
      }
    });
  }

  void differentiate_corrupted(std::int64_t draws, const Corruption& corruption, LayerTape::Graphs graphs) {
    const auto in_all = embeddings(draws);
    corruption.apply(in_all);
    differentiate(entering(in_all), graphs,
                  [this](std::int64_t layer, const at::Tensor& value, const at::Tensor& derivative) {
                    estimates_[layer - layers_.begin] += (add_values(layer, value) * derivative).sum(0);
                  });
  }

  // The clean run's derivatives are the same for all draws, whose values have been added.
  void differentiate_clean() {
    differentiate(entering(embeddings(1)), plan_of(1).graphs,
                  [this](std::int64_t layer, const at::Tensor&, const at::Tensor& derivative) {
                    const auto l = layer - layers_.begin;
                    const auto change = clean_values_[l].squeeze(0) * options_.samples - corrupted_[l];
                    estimates_[l] += change * derivative.squeeze(0);
                  });
  }

  // A run of the way from the base run's values to the other run's: which draw, where, how far.
  struct Point {
    std::int64_t position, draw;  // of positions_, and of the group
    double share;
  };

  void integrate(const CorruptedRuns& runs, std::int64_t draws, bool noising, std::int64_t steps) {
    std::vector<Point> points;
    for (std::int64_t position = 0; position < P(); ++position) {
      if (positions_[static_cast<std::size_t>(position)] < static_cast<std::int64_t>(prompt_.first_corrupted()))
        continue;
      for (std::int64_t draw = 0; draw < draws; ++draw) {
        for (std::int64_t m = 1; m <= steps; ++m) {
          points.push_back({position, draw, (static_cast<double>(m) - 0.5) / static_cast<double>(steps)});
        }
      }
    }
    const auto base = noising ? entering(embeddings(1)).expand_as(runs.entering) : runs.entering;
    const auto plan = plan_of(static_cast<std::int64_t>(points.size()));
    const auto most = static_cast<std::size_t>(plan.rows);
    for (std::size_t first = 0; first < points.size(); first += most) {
      integrate_points(std::span(points).subspan(first, std::min(most, points.size() - first)), runs, base, noising,
                       steps, plan.graphs);
    }
  }

  void integrate_points(std::span<const Point> points, const CorruptedRuns& runs, const at::Tensor& base, bool noising,
                        std::int64_t steps, LayerTape::Graphs graphs) {
    std::vector<std::int64_t> of_positions, of_draws, at_tokens;
    std::vector<double> shares;
    for (const auto& [position, draw, share] : points) {
      of_positions.push_back(position);
      of_draws.push_back(draw);
      at_tokens.push_back(positions_[static_cast<std::size_t>(position)]);
      shares.push_back(share);
    }
    const auto device = model_.device();
    const auto position = at::tensor(of_positions).to(device), draw = at::tensor(of_draws).to(device);
    const auto token = at::tensor(at_tokens).to(device), row = at::arange(token.size(0), token.options());
    const auto share = at::tensor(shares, at::kDouble).to(device).view({-1, 1});
    // Of a layer [rows, F]: the corrupted values, and clean - corrupted.
    const auto values = [&](std::int64_t layer) {
      const auto l = layer - layers_.begin;
      const auto corrupted = runs.neurons[l].index({draw, position});
      return std::pair(corrupted, clean_values_[l][0].index_select(0, position) - corrupted);
    };
    TapedAnswer answer(model_, clean_, graphs, stop_);
    const auto p = finite(answer.run(base.index_select(0, draw), layers_.begin,
                                     [&](Site site, std::int64_t layer, at::Tensor& value, LayerTape& tape) {
                                       if (site != Site::kMlpHidden || !layers_.contains(layer)) return;
                                       const auto [corrupted, change] = values(layer);
                                       auto leaf =
                                           (corrupted + change * (noising ? 1 - share : share)).to(value.scalar_type());
                                       if (at::GradMode::is_enabled()) leaf.requires_grad_();
                                       value = at::index_put(value, {row, token}, leaf);
                                       tape.mark(site, leaf);
                                     }));
    const auto factor = (p / static_cast<double>(steps)).view({-1, 1});
    answer.backward([&](std::int64_t layer, std::span<const LayerTape::Marked> marked) {
      for (const auto& [site, leaf, derivative] : marked) {
        const auto products = values(layer).second * derivative.to(at::kDouble) * factor;
        estimates_[layer - layers_.begin].index_add_(0, position, products);
      }
    });
  }

  const Decoder& model_;
  const TracePrompt& prompt_;
  const TraceOptions& options_;
  const CleanRun& clean_;
  std::stop_token stop_;
  LayerRange layers_;
  std::vector<std::int64_t> positions_;
  at::Tensor position_index_;  // the same on the model's device
  std::int64_t memory_;
  TraceTally tally_;                           // which knows what is wrong with a run
  at::Tensor clean_values_;                    // [layers, 1, P, F] in double
  at::Tensor corrupted_, change_, estimates_;  // sums over draws, [layers, P, F] in double
};

}  // namespace

NeuronValues neuron_values(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options,
                           const CleanRun& clean, const RunControl& control) {
  const at::NoGradGuard no_grad;
  return NeuronSums(model, prompt, options, clean, control).values();
}

}  // namespace rometrace

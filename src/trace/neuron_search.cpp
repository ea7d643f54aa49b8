#include "trace/neuron_search.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>
#include <utility>

#include "rometrace/trace/noise.hpp"
#include "trace/draws.hpp"

namespace rometrace {
namespace {

// The orders of a family.
constexpr std::size_t kBest = 0, kChange = 1, kFirstRandom = 2;
constexpr std::uint32_t kRandomSeeds = 1000;  // added to the seed of the noise

constexpr std::int64_t kTokens = 5;  // that are told of a neuron, each way

// An effect of so little of the probability is rounding, and there is no half of it.
constexpr double kNothing = 1e-6;

// Steps of the search for half that are made at once: each has all its possible ends run.
constexpr int kSteps = 3, kStepsStreamed = 5;

std::vector<std::int64_t> sizes_up_to(std::int64_t all) {
  std::vector<std::int64_t> sizes;
  for (std::int64_t k = 1; k < all; k *= 2) sizes.push_back(k);
  sizes.push_back(all);
  return sizes;
}

// Places of the largest values first, equal ones in their order. `values` [n].
at::Tensor largest_first(const at::Tensor& values) {
  return at::argsort(values, /*stable=*/true, /*dim=*/0, /*descending=*/true);
}

// Each one's place in an order [n] of all.
at::Tensor ranks_of(const at::Tensor& order) {
  auto ranks = at::empty({order.size(0)}, at::kInt);
  ranks.index_copy_(0, order, at::arange(order.size(0), at::kInt));
  return ranks;
}

at::Tensor random_numbers(std::uint32_t seed, std::int64_t count) {
  RandomState random(seed);
  auto numbers = at::empty({count}, at::kDouble);
  auto* const begin = numbers.mutable_data_ptr<double>();
  std::generate(begin, begin + count, [&] { return random.random_sample(); });
  return numbers;
}

std::vector<std::int64_t> list_of(const at::Tensor& numbers) {
  const auto all = numbers.to(at::kLong).contiguous();
  return {all.const_data_ptr<std::int64_t>(), all.const_data_ptr<std::int64_t>() + all.numel()};
}

}  // namespace

NeuronSearch::NeuronSearch(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options,
                           const CleanRun& clean, const RunControl& control)
    : model_(model),
      options_(options),
      asked_(options.neurons.value()),
      positions_(positions_of(asked_.positions, prompt)),
      layers_(layers_of(asked_, model.config())),
      columns_(1 + clean.trace.measured.size()),
      values_(neuron_values(model, prompt, options, clean, control)) {}

std::vector<Patch> NeuronSearch::next(double base) {
  round_begin_ = runs_.size();
  switch (stage_) {
    case Stage::kBegin:
      if (!asked_.given.empty()) {
        ask_for_given();
        stage_ = Stage::kDone;
      } else if (asked_.ranking.which == NeuronRule::Which::kNone) {
        ask_for_all();
        stage_ = Stage::kNeurons;
      } else {
        ask_for_best();
        make_families(values_.estimates);
        ask_for_sets();
        stage_ = Stage::kSets;
      }
      break;
    case Stage::kNeurons:
      make_families(exact_effects(base));
      ask_for_sets();
      stage_ = Stage::kSets;
      break;
    case Stage::kSets:
      ask_for_halves(base);
      if (runs_.size() == round_begin_) stage_ = Stage::kDone;
      break;
    case Stage::kDone:
      break;
  }
  std::vector<Patch> patches;
  for (auto i = round_begin_; i < runs_.size(); ++i) patches.push_back(runs_[i].patch);
  return patches;
}

std::int64_t NeuronSearch::first_runs(const NeuronOptions& options, const DecoderConfig& config) {
  if (!options.given.empty()) return static_cast<std::int64_t>(options.given.size());
  const auto range = layers_of(options, config);
  const auto layers = range.end - range.begin, all = layers * config.mlp_width;
  const auto sets_of = [](std::int64_t candidates) {
    return std::ssize(sizes_up_to(candidates)) * (2 + NeuronControl::kRandomOrders);
  };
  const auto single = options.ranking.which == NeuronRule::Which::kNone ? all : std::min(all, options.top);
  return single + sets_of(all) + (options.sets_by_layer ? layers * sets_of(config.mlp_width) : 0);
}

bool NeuronSearch::is_told(std::size_t run) const {
  const auto& [patch, family, order, count, values] = runs_[round_begin_ + run];
  return family == kNone || order < kFirstRandom;
}

void NeuronSearch::add(std::size_t run, std::span<const double> values) {
  auto& all = runs_[round_begin_ + run].values;
  all.insert(all.end(), values.begin(), values.end());
}

void NeuronSearch::ask_for_one(std::int64_t position, NeuronName neuron) {
  Run run;
  run.patch.position = position;
  Change change{Site::kMlpHidden, {neuron.layer, neuron.layer + 1}};
  change.neuron = neuron.neuron;
  run.patch.changes.push_back(change);
  runs_.push_back(std::move(run));
}

void NeuronSearch::ask_for_given() {
  for (const auto position : positions_) {
    for (const auto& neuron : asked_.given) ask_for_one(position, neuron);
  }
}

void NeuronSearch::ask_for_best() {
  const auto F = model_.config().mlp_width, layers = layers_.end - layers_.begin;
  const auto order = largest_first(values_.estimates.abs().flatten());
  const auto tried = std::min(order.size(0), asked_.top);
  for (const auto place : list_of(order.slice(0, 0, tried))) {
    ask_for_one(positions_[static_cast<std::size_t>(place / (layers * F))],
                {layers_.begin + place / F % layers, place % F});
  }
}

void NeuronSearch::ask_for_all() {
  for (const auto position : positions_) {
    for (auto layer = layers_.begin; layer < layers_.end; ++layer) {
      for (std::int64_t neuron = 0; neuron < model_.config().mlp_width; ++neuron) {
        ask_for_one(position, {layer, neuron});
      }
    }
  }
}

// `effects` [positions, layers, F]: what the best are the largest of.
void NeuronSearch::make_families(const at::Tensor& effects) {
  const auto F = model_.config().mlp_width;
  const auto make = [&](std::int64_t place, std::optional<std::int64_t> layer) {
    auto& family = families_.emplace_back();
    const auto layers = layer ? LayerRange{*layer, *layer + 1} : layers_;
    const auto of_family = [&](const at::Tensor& all) {
      return all[place].slice(0, layers.begin - layers_.begin, layers.end - layers_.begin).flatten();
    };
    family.position = positions_[static_cast<std::size_t>(place)];
    family.layer = layer;
    family.candidates = (layers.end - layers.begin) * F;
    family.sizes = sizes_up_to(family.candidates);
    const auto add = [&](const at::Tensor& order) { family.orders.push_back({layers, ranks_of(order).view({-1, F})}); };
    add(largest_first(of_family(effects)));
    add(largest_first(of_family(values_.change)));
    for (std::uint32_t i = 0; i < NeuronControl::kRandomOrders; ++i) {
      const auto numbers = random_numbers(options_.corruption.seed + kRandomSeeds + i, family.candidates);
      add(at::argsort(numbers, /*stable=*/true, /*dim=*/0, /*descending=*/false));
    }
  };
  for (std::size_t place = 0; place < positions_.size(); ++place) {
    make(static_cast<std::int64_t>(place), std::nullopt);
  }
  for (std::size_t place = 0; asked_.sets_by_layer && place < positions_.size(); ++place) {
    for (auto layer = layers_.begin; layer < layers_.end; ++layer) make(static_cast<std::int64_t>(place), layer);
  }
}

void NeuronSearch::ask_for_set(std::size_t family, std::size_t order, std::int64_t count) {
  const auto& of = families_[family];
  const auto& neurons = of.orders[order];
  const auto has_some = list_of((neurons.ranks < count).any(1));  // by layer
  const auto first = std::find(has_some.begin(), has_some.end(), 1);
  const auto last = std::find(has_some.rbegin(), has_some.rend(), 1);
  Change change{Site::kMlpHidden,
                {neurons.layers.begin + (first - has_some.begin()), neurons.layers.end - (last - has_some.rbegin())}};
  change.order = &neurons;
  change.count = count;
  Run run;
  run.patch.position = of.position;
  run.patch.changes.push_back(change);
  run.family = family;
  run.order = order;
  run.count = count;
  runs_.push_back(std::move(run));
}

void NeuronSearch::ask_for_sets() {
  for (std::size_t family = 0; family < families_.size(); ++family) {
    const auto& [position, layer, candidates, sizes, orders, begun, low, high, half] = families_[family];
    for (const auto count : sizes) {
      const auto different = count == candidates ? 1 : orders.size();  // all are all, in whatever order
      for (std::size_t order = 0; order < different; ++order) ask_for_set(family, order, count);
    }
  }
}

const NeuronSearch::Run* NeuronSearch::find(std::size_t family, std::size_t order, std::int64_t count) const {
  const auto found = std::find_if(runs_.begin(), runs_.end(), [&](const Run& run) {
    return run.family == family && run.order == order && run.count == count && !run.values.empty();
  });
  return found == runs_.end() ? nullptr : &*found;
}

double NeuronSearch::effect_of(const std::vector<double>& values, double base) const {
  const double score = score_of(values).score;
  return options_.direction == Direction::kNoising ? base - score : score - base;
}

RunScore NeuronSearch::score_of(const std::vector<double>& values) const {
  RunTally tally;
  tally.add(values, columns_);
  RunScore score{tally.columns.front().mean(), tally.columns.front().standard_error(), {}};
  for (std::size_t i = 1; i < columns_; ++i) {
    score.measured.push_back({tally.columns[i].mean(), tally.columns[i].standard_error()});
  }
  return score;
}

// [positions, layers, F], where all neurons have been run.
at::Tensor NeuronSearch::exact_effects(double base) const {
  auto effects = at::empty({static_cast<std::int64_t>(runs_.size())}, at::kDouble);
  auto* const data = effects.mutable_data_ptr<double>();
  for (std::size_t i = 0; i < runs_.size(); ++i) data[i] = effect_of(runs_[i].values, base);
  return effects.view({static_cast<std::int64_t>(positions_.size()), layers_.end - layers_.begin, -1});
}

// Narrows the search for half by the runs that are known, and says whether it goes on.
bool NeuronSearch::follow(std::size_t index, double base) {
  auto& family = families_[index];
  const auto effect = [&](std::int64_t count) { return effect_of(find(index, kBest, count)->values, base); };
  const double half = effect(family.candidates) / 2;
  if (!family.begun) {
    family.begun = true;
    const double score = score_of(find(index, kBest, family.candidates)->values).score;
    if (!(2 * half > kNothing * std::max(base, score))) return false;
    for (const auto size : family.sizes) {
      family.high = size;
      if (effect(size) >= half) break;
      family.low = size;
    }
  }
  if (family.high == 0) return false;  // nothing to find
  while (family.high - family.low > 1) {
    const auto middle = (family.low + family.high) / 2;
    if (find(index, kBest, middle) == nullptr) return true;
    (effect(middle) >= half ? family.high : family.low) = middle;
  }
  family.half = family.high;
  return false;
}

void NeuronSearch::ask_for_halves(double base) {
  const int steps = model_.streamed() ? kStepsStreamed : kSteps;
  for (std::size_t index = 0; index < families_.size(); ++index) {
    if (!follow(index, base)) continue;
    // Every middle that the next steps may come to.
    std::vector<std::pair<std::int64_t, std::int64_t>> between = {{families_[index].low, families_[index].high}};
    for (int step = 0; step < steps; ++step) {
      std::vector<std::pair<std::int64_t, std::int64_t>> halves;
      for (const auto& [low, high] : between) {
        if (high - low < 2) continue;
        const auto middle = (low + high) / 2;
        ask_for_set(index, kBest, middle);
        halves.emplace_back(low, middle);
        halves.emplace_back(middle, high);
      }
      between = std::move(halves);
    }
  }
}

// The mean over the random orders, draw by draw.
std::vector<double> NeuronSearch::random_values(std::size_t family, std::int64_t count) const {
  std::vector<double> mean;
  for (std::size_t i = 0; i < NeuronControl::kRandomOrders; ++i) {
    const auto& values = find(family, kFirstRandom + i, count)->values;
    mean.resize(values.size());
    for (std::size_t at = 0; at < values.size(); ++at) mean[at] += values[at] / NeuronControl::kRandomOrders;
  }
  return mean;
}

std::vector<NeuronEffect> NeuronSearch::effects(double base) const {
  std::vector<NeuronEffect> effects;
  for (const auto& run : runs_) {
    if (run.family != kNone) continue;
    const auto& change = run.patch.changes.front();
    const auto place = std::find(positions_.begin(), positions_.end(), run.patch.position) - positions_.begin();
    const auto value = [&](const at::Tensor& all) {
      return all.defined() ? all[place][change.layers.begin - layers_.begin][*change.neuron].item<double>()
                           : std::numeric_limits<double>::quiet_NaN();
    };
    auto& effect = effects.emplace_back();
    effect.layer = change.layers.begin;
    effect.position = run.patch.position;
    effect.neuron = *change.neuron;
    effect.estimate = value(values_.estimates);
    effect.run = score_of(run.values);
    effect.clean = value(values_.clean);
    effect.corrupted = value(values_.corrupted);
  }
  std::sort(effects.begin(), effects.end(), [&](const NeuronEffect& a, const NeuronEffect& b) {
    const auto key = [&](const NeuronEffect& effect) {
      return std::tuple(-std::abs(effect.run.score - base), effect.position, effect.layer, effect.neuron);
    };
    return key(a) < key(b);
  });
  if (asked_.given.empty() && std::ssize(effects) > asked_.top) effects.resize(static_cast<std::size_t>(asked_.top));
  describe(effects);
  return effects;
}

// Adds what the neurons write.
void NeuronSearch::describe(std::vector<NeuronEffect>& effects) const {
  std::map<std::int64_t, std::vector<std::size_t>> by_layer;
  for (std::size_t i = 0; i < effects.size(); ++i) by_layer[effects[i].layer].push_back(i);
  for (const auto& [layer, places] : by_layer) {
    std::vector<std::int64_t> neurons;
    for (const auto i : places) neurons.push_back(effects[i].neuron);
    const auto rows = model_.mlp_output_rows(layer, neurons);
    const auto norms = rows.norm(2, 1).cpu();
    constexpr std::int64_t kAtOnce = 64;
    for (std::int64_t begin = 0; begin < rows.size(0); begin += kAtOnce) {
      const auto logits = model_.direct_logits(layer, rows.slice(0, begin, begin + kAtOnce));
      const auto tokens = std::min(kTokens, logits.size(1));
      const auto [most, most_ids] = logits.topk(tokens, 1, /*largest=*/true);
      const auto [least, least_ids] = logits.topk(tokens, 1, /*largest=*/false);
      const auto list = [&](const at::Tensor& values, const at::Tensor& ids, std::int64_t row) {
        const auto of_row = values[row].to(at::kDouble).cpu(), ids_of_row = ids[row].cpu();
        std::vector<TokenLogit> found;
        for (std::int64_t i = 0; i < tokens; ++i) {
          found.push_back({ids_of_row[i].item<std::int32_t>(), of_row[i].item<double>()});
        }
        return found;
      };
      for (std::int64_t row = 0; row < logits.size(0); ++row) {
        auto& effect = effects[places[static_cast<std::size_t>(begin + row)]];
        effect.row_norm = norms[begin + row].item<double>();
        effect.promotes = list(most, most_ids, row);
        effect.suppresses = list(least, least_ids, row);
      }
    }
  }
}

NeuronTrace NeuronSearch::result(double base) const {
  NeuronTrace trace;
  trace.positions = positions_;
  trace.layers = layers_;
  trace.ranked_by = asked_.ranking;
  trace.given = !asked_.given.empty();
  const auto of_position = trace.given ? static_cast<std::int64_t>(asked_.given.size())
                                       : (layers_.end - layers_.begin) * model_.config().mlp_width;
  trace.candidates = static_cast<std::int64_t>(positions_.size()) * of_position;
  trace.effects = effects(base);
  for (std::size_t index = 0; index < families_.size(); ++index) {
    const auto& family = families_[index];
    const auto set = [&](std::int64_t count, const std::vector<double>& values) {
      return NeuronSet{family.position, family.layer, count, score_of(values)};
    };
    using Order = NeuronControl::Order;
    for (const auto count : family.sizes) {
      (family.layer ? trace.sets_by_layer : trace.sets).push_back(set(count, find(index, kBest, count)->values));
    }
    for (const auto order : {Order::kChange, Order::kRandom}) {
      for (const auto count : family.sizes) {
        const auto values = count == family.candidates ? find(index, kBest, count)->values
                            : order == Order::kChange  ? find(index, kChange, count)->values
                                                       : random_values(index, count);
        trace.controls.push_back({order, set(count, values)});
      }
    }
    trace.half.push_back({family.position, family.layer, family.candidates, family.half});
  }
  return trace;
}

}  // namespace rometrace

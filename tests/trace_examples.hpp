#pragma once

#include <algorithm>
#include <filesystem>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "files.hpp"
#include "golden_models.hpp"
#include "random_model.hpp"
#include "rometrace/model/decoder.hpp"
#include "rometrace/trace/sweep.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace::testing {

/// One draw of model, prompt and options.
class Example {
 public:
  explicit Example(unsigned seed) : engine_(seed) {
    const std::vector<std::string> activations = {"gelu_new", "gelu", "quick_gelu", "relu", "silu", "sigmoid", "tanh"};
    model_.layers = whole(1, 6);
    model_.heads = whole(1, 3);
    model_.width = model_.heads * pick(std::vector<std::int64_t>{2, 3, 4, 8, 17});
    model_.inner = whole(1, 40);
    model_.vocab = whole(2, 60);
    model_.positions = whole(1, 24);
    model_.activation = pick(activations);
    model_.scale_by_layer = chance(0.3);
    model_.tied = chance(0.7);
    write_random_model(folder_, model_, engine_);
    path_ = folder_.path();
    draw(seed);
  }

  /// Of a model that is there already.
  Example(unsigned seed, const GoldenModel& golden) : engine_(seed), path_(golden.folder) {
    const auto config = read_config(path_ / "config.json");
    model_.layers = config.layers;
    model_.inner = config.mlp_width;
    mixes_experts_ = config.experts.has_value();
    model_.vocab = config.vocab_size;
    model_.positions = std::min<std::int64_t>(10, config.max_positions);
    draw(seed);
  }

  void draw(unsigned seed) {
    const auto T = chance(0.2) ? model_.positions : whole(1, model_.positions);
    for (std::int64_t i = 0; i < T; ++i) {
      prompt.token_ids.push_back(static_cast<std::int32_t>(whole(0, model_.vocab - 1)));
    }
    const auto begin = whole(0, T - 1), end = whole(begin + 1, T);
    prompt.subject_range = {static_cast<std::size_t>(begin), static_cast<std::size_t>(end)};

    options.kinds = {Kind::kState, Kind::kMlp, Kind::kAttn};
    std::shuffle(options.kinds.begin(), options.kinds.end(), engine_);
    options.kinds.resize(static_cast<std::size_t>(whole(1, 3)));
    options.window = whole(1, 2 * model_.layers + 1);
    options.samples = whole(1, 5);
    options.corruption.seed = static_cast<std::uint32_t>(seed);
    options.corruption.sigma = chance(0.1) ? 0 : 0.2 * static_cast<double>(whole(1, 10));
    if (chance(0.3)) options.corruption.distribution = NoiseRule::Distribution::kUniform;
    options.corruption.replace = chance(0.3);
    if (chance(0.3)) prompt.target = {a_token()};

    // Enough for the corrupted run and one patch at least.
    const auto patch_rows = 2 * options.samples * (T - begin);
    memory_rows = chance(0.5) ? patch_rows : patch_rows * whole(1, 30);
    block_rows = whole(1, 60);
  }

  std::string description() const {
    std::ostringstream text;
    text << "L " << model_.layers << ", D " << model_.width << ", H " << model_.heads << ", V " << model_.vocab << ", "
         << model_.activation << ", T " << prompt.token_ids.size() << ", subject [" << prompt.subject_range.begin
         << ", " << prompt.subject_range.end << "), window " << options.window << ", N " << options.samples
         << ", sigma " << options.corruption.sigma;
    return text.str();
  }

  /// Kinds, directions, answers, corruptions and measures of all sorts beside what the paper has.
  void widen() {
    options.kinds = {Kind::kState, Kind::kMlp,     Kind::kAttn, Kind::kStateMlpSevered, Kind::kStateAttnSevered,
                     Kind::kHead,  Kind::kKnockout};
    std::shuffle(options.kinds.begin(), options.kinds.end(), engine_);
    options.kinds.resize(static_cast<std::size_t>(whole(1, 7)));
    options.head_window = chance(0.5) ? 1 : whole(1, model_.layers + 2);
    options.knockout_window = whole(1, model_.layers + 2);
    if (chance(0.5)) options.direction = Direction::kNoising;
    const auto T = static_cast<std::int64_t>(prompt.token_ids.size());
    if (chance(0.4)) {
      options.positions.which = static_cast<PositionRule::Which>(whole(0, 4));
      for (std::int64_t t = 0; t < T; ++t) {
        if (options.positions.which == PositionRule::Which::kList && chance(0.5)) options.positions.list.push_back(t);
      }
    }
    if (chance(0.5)) {
      const auto K = whole(1, std::min<std::int64_t>(4, model_.positions - T + 1));
      prompt.target.clear();
      for (std::int64_t k = 0; k < K; ++k) prompt.target.push_back(a_token());
    }
    if (chance(0.3)) {
      prompt.foil = a_token();
      options.measures = {Measure::kLogProbability, Measure::kLogit, Measure::kLogitDifference, Measure::kRank,
                          Measure::kKl};
      std::shuffle(options.measures.begin(), options.measures.end(), engine_);
      options.measures.resize(static_cast<std::size_t>(whole(1, 5)));
      if (prompt.answer_tokens() == 1 && chance(0.5)) prompt.other_targets = {a_token(), a_token()};
    }
    if (chance(0.2)) {
      options.corruption.method = CorruptionMethod::kTokens;
      prompt.counter_ids = prompt.token_ids;
      for (auto& id : prompt.counter_ids) {
        if (chance(0.3)) id = a_token();
      }
      prompt.counter_ids.back() = (prompt.token_ids.back() + 1) % static_cast<std::int32_t>(model_.vocab);
      options.samples = 1;
    } else if (chance(0.2)) {
      options.precision = 0.02;
      options.most_samples = 3 * options.samples - 1;
    }
    if (chance(0.25) && !mixes_experts_) ask_for_neurons();
    if (!options.precision && !options.neurons && chance(0.4)) options.direction = Direction::kBoth;
    const auto rows = options.samples * (T + prompt.answer_tokens() - 1 - prompt.first_corrupted());
    memory_rows = 2 * rows * (chance(0.5) ? 1 : whole(1, 30));
  }

  /// Other prompts that can share a sweep with this one's: subjects may end elsewhere.
  std::vector<TracePrompt> prompts_of_its_shape(std::size_t count) {
    std::vector<TracePrompt> prompts(count, prompt);
    const auto begin = static_cast<std::int64_t>(prompt.subject_range.begin);
    for (auto& each : prompts) {
      for (auto& id : each.token_ids) id = a_token();
      if (!each.counter_ids.empty()) {  // differing where they did
        for (std::size_t t = 0; t < each.token_ids.size(); ++t) {
          const auto apart = prompt.counter_ids[t] - prompt.token_ids[t] + static_cast<std::int32_t>(model_.vocab);
          each.counter_ids[t] = (each.token_ids[t] + apart) % static_cast<std::int32_t>(model_.vocab);
        }
      }
      each.subject_range.end =
          static_cast<std::size_t>(whole(begin + 1, static_cast<std::int64_t>(each.token_ids.size())));
      if (sweep_key(each, options) != sweep_key(prompt, options)) each.subject_range = prompt.subject_range;
    }
    return prompts;
  }

  std::shared_ptr<const Decoder> load(const LoadOptions& how) const { return Decoder::load(path_, how); }
  std::shared_ptr<const Decoder> load(at::ScalarType dtype) const { return Decoder::load(path_, dtype); }
  /// Any CPU multiplies in bfloat16, if slowly, once it is not refused; kFast is packed where the CPU is made for it.
  std::shared_ptr<const Decoder> load_in_bfloat16(Products products) const {
    return Decoder::load(path_, LoadOptions{.dtype = at::kBFloat16,
                                            .products = products,
                                            .memory = std::nullopt,
                                            .processor = {.multiplies_bfloat16 = true}});
  }
  /// Each layer is read when it is used.
  std::shared_ptr<const Decoder> load_streamed(at::ScalarType dtype) const {
    LoadOptions how;
    how.dtype = dtype;
    how.memory = 0;
    return Decoder::load(path_, how);
  }

  TracePrompt prompt;
  TraceOptions options;
  std::int64_t memory_rows = 0, block_rows = 0;

 private:
  void ask_for_neurons() {
    if (chance(0.3)) options.kinds.clear();
    auto& neurons = options.neurons.emplace();
    neurons.positions.which = pick(std::vector{PositionRule::Which::kSubjectLast, PositionRule::Which::kLast});
    const auto begin = whole(0, model_.layers - 1);
    if (chance(0.5)) neurons.layers = LayerRange{begin, whole(begin + 1, model_.layers)};
    neurons.top = whole(1, 10);
    neurons.sets_by_layer = chance(0.15);
    // Without noise all estimates are 0 but for rounding, and which are the best depends on how draws are grouped.
    if (options.corruption.sigma == 0 || chance(0.3))
      neurons.given = {{begin, 0}, {model_.layers - 1, model_.inner - 1}};
    if (chance(0.3)) {  // all are told of: of equal ones any may be the best
      neurons.ranking.which = NeuronRule::Which::kNone;
      neurons.positions.which = PositionRule::Which::kSubjectLast;
      neurons.top = 100000;
    }
  }

  std::int32_t a_token() { return static_cast<std::int32_t>(whole(0, model_.vocab - 1)); }
  std::int64_t whole(std::int64_t least, std::int64_t most) {
    return std::uniform_int_distribution<std::int64_t>(least, most)(engine_);
  }
  bool chance(double probability) { return std::bernoulli_distribution(probability)(engine_); }
  template <typename Value>
  Value pick(const std::vector<Value>& values) {
    return values[static_cast<std::size_t>(whole(0, static_cast<std::int64_t>(values.size()) - 1))];
  }

  std::mt19937 engine_;
  RandomModel model_;
  bool mixes_experts_ = false;  // and then has no neurons to be asked for
  TemporaryFolder folder_;
  std::filesystem::path path_;
};

}  // namespace rometrace::testing

#include "trace/neuron_values.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/stack.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <random>
#include <set>
#include <stop_token>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "closeness.hpp"
#include "files.hpp"
#include "golden_models.hpp"
#include "random_model.hpp"
#include "rometrace/error.hpp"
#include "rometrace/trace/patch.hpp"
#include "trace/corruption.hpp"

namespace rometrace::neuron_values_test {
namespace {

using testing::Contains;
using testing::largest_difference;
using testing::message_of;
using testing::RandomModel;
using testing::TemporaryFolder;

constexpr auto kBoth = {Direction::kDenoising, Direction::kNoising};

// A prompt, how it is traced, and the folder of a model.
struct Example {
  std::filesystem::path folder;
  TracePrompt prompt;
  TraceOptions options;

  std::shared_ptr<const Decoder> load(LoadOptions how = {.dtype = at::kDouble, .memory = std::nullopt}) const {
    how.processor.multiplies_bfloat16 = true;  // any CPU does, if slowly, once it is not refused
    return Decoder::load(folder, how);
  }
};

// One of each family, and of each order in which a layer puts attention and MLP together.
std::vector<std::pair<std::string, Example>> examples_of_families() {
  const std::set<std::string> names = {
      "bloom",     "cohere",   "default_fields",  "falcon_grouped", "gemma",         "gemma2",
      "gemma3",    "glm4",     "gpt_bigcode",     "gpt_neo",        "gpt_neox",      "gpt_neox_sequential",
      "gptj",      "granite",  "activation_relu", "llama",          "llama_grouped", "mistral",
      "mpt",       "nemotron", "olmo2",           "olmo_clipped",   "opt",           "opt_norm_after",
      "phi",       "phi3",     "qwen2_sliding",   "qwen3",          "smollm3",       "stablelm_parallel",
      "starcoder2"};
  std::vector<std::pair<std::string, Example>> examples;
  for (const auto& golden : testing::golden_models()) {
    if (!names.contains(golden.name)) continue;
    Example example{golden.folder, {}, {}};
    example.prompt.token_ids = {4, 13, 30, 20, 28};
    example.prompt.subject_range = {1, 3};
    example.options.samples = 2;
    example.options.corruption.sigma = 1;
    example.options.neurons.emplace();
    examples.emplace_back(golden.name, std::move(example));
  }
  REQUIRE(examples.size() == names.size());
  return examples;
}

// Makes what the model says the answer: K = 2, and a probability that the corruption changes.
void ask_for_two_tokens(const Decoder& model, Example& example) {
  const std::vector<const TracePrompt*> prompts = {&example.prompt};
  const std::vector<std::int64_t> most = {2};
  example.prompt.target = greedy_answers(model, prompts, most, [](std::int32_t) { return false; }).front();
}

// A model of four layers, whose subject is in the middle of the prompt.
struct RandomExample : Example {
  TemporaryFolder own;

  RandomExample() {
    std::mt19937 engine(18);
    RandomModel shape;
    shape.layers = 4;
    shape.width = 12;
    shape.heads = 3;
    shape.inner = 20;
    testing::write_random_model(own, shape, engine);
    folder = own.path();
    prompt.token_ids = {3, 1, 4, 5, 9};
    prompt.subject_range = {1, 3};
    options.samples = 3;
    options.corruption.sigma = 0.5;
    options.neurons.emplace();
    options.neurons->positions = PositionRule::parse("0,1,2,4");
  }
};

// One run of all draws, [draws] the answer's probabilities; differentiable where `change` makes it so.
at::Tensor probabilities(const Decoder& model, const Example& example, const CleanRun& clean, bool corrupt,
                         const Tap& change) {
  const auto& [folder, prompt, options] = example;
  const Corruption corruption(model, options.corruption, prompt.subject_range, prompt.counter_ids, 0, options.samples);
  const auto hidden = model.forward(clean.token_ids, options.samples, [&](Site site, std::int64_t layer, auto& value) {
    if (site == Site::kEmbedding && corrupt) corruption.apply(value);
    change(site, layer, value);
  });
  const auto log_p = at::log_softmax(model.logits(hidden), -1, at::kDouble);
  at::Tensor sum;
  for (std::size_t k = 0; k < clean.trace.answer_ids.size(); ++k) {
    const auto of_token =
        log_p.select(1, clean.trace.tokens - 1 + static_cast<std::int64_t>(k)).select(1, clean.trace.answer_ids[k]);
    sum = k == 0 ? of_token : sum + of_token;
  }
  return sum.exp();
}

// The neurons of one of the two runs, layer by layer [draws, R, F].
std::vector<at::Tensor> neurons_of(const Decoder& model, const Example& example, const CleanRun& clean, bool corrupt) {
  std::vector<at::Tensor> found;
  probabilities(model, example, clean, corrupt, [&](Site site, std::int64_t, const at::Tensor& value) {
    if (site == Site::kMlpHidden) found.push_back(value.to(at::kDouble));
  });
  return found;
}

// The definition: one derivative through the whole model at each point of the way, of the neurons of the chosen layers
// at one position. Without steps: at the base run.
at::Tensor estimates_by_definition(const Decoder& model, const Example& example, const CleanRun& clean) {
  const auto& rule = example.options.neurons->ranking;
  const bool noising = example.options.direction == Direction::kNoising;
  const bool integrated = rule.which == NeuronRule::Which::kIntegrated;
  const auto layers = layers_of(*example.options.neurons, model.config());
  const auto at_clean = neurons_of(model, example, clean, false),
             at_corrupted = neurons_of(model, example, clean, true);
  std::vector<at::Tensor> of_positions;
  for (const auto position : positions_of(example.options.neurons->positions, example.prompt)) {
    std::vector<at::Tensor> sums;
    for (std::int64_t m = 1; m <= rule.steps; ++m) {
      const auto way = integrated ? (static_cast<double>(m) - 0.5) / static_cast<double>(rule.steps) : 0;
      std::vector<at::Tensor> leaves, changes;
      for (auto layer = layers.begin; layer < layers.end; ++layer) {
        const auto of = [&](const auto& run) { return run[static_cast<std::size_t>(layer)].select(1, position); };
        const auto &base = noising ? at_clean : at_corrupted, &other = noising ? at_corrupted : at_clean;
        leaves.push_back((of(base) + way * (of(other) - of(base))).requires_grad_());
        changes.push_back(of(at_clean) - of(at_corrupted));
      }
      const at::AutoGradMode with_gradients(true);
      const auto p = probabilities(model, example, clean, !noising, [&](Site site, std::int64_t layer, auto& value) {
        if (site != Site::kMlpHidden || !layers.contains(layer)) return;
        const auto& leaf = leaves[static_cast<std::size_t>(layer - layers.begin)];
        value = value.clone();
        if (integrated) {
          value.select(1, position).copy_(leaf);
        } else {  // it still depends on what is below, and so the derivative by a neuron there is a whole one
          value.select(1, position).add_(leaf - leaf.detach());
        }
      });
      const auto derivatives = torch::autograd::grad({p.sum()}, leaves);
      for (std::size_t i = 0; i < leaves.size(); ++i) {
        const auto product = (changes[i] * derivatives[i]).mean(0) / static_cast<double>(rule.steps);
        if (m == 1) {
          sums.push_back(product);
        } else {
          sums[i] += product;
        }
      }
    }
    of_positions.push_back(at::stack(sums));
  }
  return at::stack(of_positions);
}

NeuronValues found(const Decoder& model, const Example& example, const RunControl& control = {}) {
  return neuron_values(model, example.prompt, example.options, run_clean(model, example.prompt, example.options),
                       control);
}

void compare(const NeuronValues& a, const NeuronValues& b, double tolerance) {
  CHECK(largest_difference(a.clean, b.clean) < tolerance);
  CHECK(largest_difference(a.corrupted, b.corrupted) < tolerance);
  CHECK(largest_difference(a.change, b.change) < tolerance);
  CHECK(largest_difference(a.estimates, b.estimates) < tolerance);
}

TEST_CASE("an estimate is the change of a neuron's value times the finite difference by it, in every family") {
  for (auto& [name, example] : examples_of_families()) {
    CAPTURE(name);
    const auto model = example.load();
    ask_for_two_tokens(*model, example);
    const auto L = model->config().layers, F = model->config().mlp_width;
    for (const auto direction : kBoth) {
      CAPTURE(to_string(direction));
      example.options.direction = direction;
      const bool noising = direction == Direction::kNoising;
      const auto clean = run_clean(*model, example.prompt, example.options);
      const auto values = neuron_values(*model, example.prompt, example.options, clean, {});
      const auto at_clean = neurons_of(*model, example, clean, false);
      const auto at_corrupted = neurons_of(*model, example, clean, true);
      const auto position = static_cast<std::int64_t>(example.prompt.subject_range.end) - 1;
      REQUIRE(values.estimates.sizes() == at::IntArrayRef({1, L, F}));
      // The error of a central difference is of the order of the step's square; that of rounding is 1e-16 / step.
      constexpr double kStep = 1e-4;
      testing::Closeness closeness({1e-5, 1e-9});
      double largest = 0;
      for (std::int64_t layer = 0; layer < L; ++layer) {
        const auto of = [&](const auto& run) { return run[static_cast<std::size_t>(layer)].select(1, position); };
        const auto change = of(at_clean) - of(at_corrupted);
        CHECK(largest_difference(values.clean[0][layer], of(at_clean)[0]) < 1e-12);
        CHECK(largest_difference(values.corrupted[0][layer], of(at_corrupted).mean(0)) < 1e-12);
        CHECK(largest_difference(values.change[0][layer], change.abs().mean(0)) < 1e-12);
        for (std::int64_t neuron = layer; neuron < F; neuron += std::max<std::int64_t>(1, F / 4)) {
          const auto moved = [&](double step) {
            return probabilities(*model, example, clean, !noising, [&](Site site, std::int64_t at, auto& value) {
              if (site == Site::kMlpHidden && at == layer) value.select(1, position).select(1, neuron).add_(step);
            });
          };
          const auto slope = (moved(kStep) - moved(-kStep)) / (2 * kStep);
          const auto expected = (change.select(1, neuron) * slope).mean().template item<double>();
          closeness.compare(std::to_string(layer) + ":" + std::to_string(neuron),
                            values.estimates[0][layer][neuron].template item<double>(), expected);
          largest = std::max(largest, std::abs(expected));
        }
      }
      closeness.check();
      CHECK(largest > 1e-6);
    }
  }
}

TEST_CASE("every rule is what one backward through the whole model gives, in every family") {
  auto examples = examples_of_families();
  const RandomExample random;
  examples.emplace_back("random", random);
  for (auto& [name, example] : examples) {
    CAPTURE(name);
    const auto model = example.load();
    ask_for_two_tokens(*model, example);
    for (const auto direction : kBoth) {
      example.options.direction = direction;
      for (const auto* rule : {"gradient", "integrated:2"}) {
        CAPTURE(std::string(rule));
        example.options.neurons->ranking = NeuronRule::parse(rule);
        example.options.neurons->layers = {model->config().layers / 2, model->config().layers};
        example.options.neurons->positions = PositionRule::parse("2,4");
        const auto clean = run_clean(*model, example.prompt, example.options);
        const auto expected = estimates_by_definition(*model, example, clean);
        const auto values = neuron_values(*model, example.prompt, example.options, clean, {});
        CHECK(largest_difference(values.estimates, expected) < 1e-12);
        CHECK(expected.abs().max().item<double>() > 1e-6);
      }
    }
  }
}

TEST_CASE("integrated estimates add up to the effect of all neurons together") {
  RandomExample example;
  example.options.neurons->positions = PositionRule::parse("subject-last");
  const auto model = example.load();
  for (const auto direction : kBoth) {
    CAPTURE(to_string(direction));
    example.options.direction = direction;
    const bool noising = direction == Direction::kNoising;
    const auto clean = run_clean(*model, example.prompt, example.options);
    const auto base = probabilities(*model, example, clean, !noising, [](Site, std::int64_t, at::Tensor&) {});
    const auto other = neurons_of(*model, example, clean, noising);
    const auto all = probabilities(*model, example, clean, !noising, [&](Site site, std::int64_t layer, auto& value) {
      if (site == Site::kMlpHidden) value.select(1, 2).copy_(other[static_cast<std::size_t>(layer)].select(1, 2));
    });
    const auto effect = (noising ? base - all : all - base).mean().item<double>();
    REQUIRE(std::abs(effect) > 1e-4);
    // The midpoint rule's error falls with the square of the steps: a hundred leave 1e-4 of the effect.
    example.options.neurons->ranking = NeuronRule::parse("integrated:100");
    CHECK(found(*model, example).estimates.sum().item<double>() == doctest::Approx(effect).epsilon(1e-3));
    example.options.neurons->ranking = NeuronRule::parse("gradient");
    CHECK(std::abs(found(*model, example).estimates.sum().item<double>() - effect) > 0.01 * std::abs(effect));
  }
}

TEST_CASE("draws and points in groups, graphs made again and streamed layers give the same numbers") {
  RandomExample example;
  example.options.neurons->positions = PositionRule::parse("1,4");
  const auto held = example.load();
  const auto streamed = example.load({.dtype = at::kDouble, .memory = 0});
  REQUIRE(streamed->streamed());
  for (const auto direction : kBoth) {
    example.options.direction = direction;
    for (const auto* rule : {"gradient", "integrated:2"}) {
      CAPTURE(std::string(rule));
      example.options.neurons->ranking = NeuronRule::parse(rule);
      const auto expected = found(*held, example);
      CHECK(expected.estimates.abs().max().item<double>() > 1e-4);
      for (const std::int64_t memory : {1, 40'000}) {
        CAPTURE(memory);
        RunControl control;
        control.memory = memory;
        compare(found(*held, example, control), expected, 1e-13);
        compare(found(*streamed, example, control), expected, 1e-13);
      }
    }
  }
}

TEST_CASE("layers that are chosen have the gradients that they have among all") {
  RandomExample example;
  const auto model = example.load();
  for (const auto direction : kBoth) {
    example.options.direction = direction;
    example.options.neurons->layers.reset();
    const auto all = found(*model, example);
    example.options.neurons->layers = {1, 3};
    const auto some = found(*model, example);
    CHECK(largest_difference(some.estimates, all.estimates.slice(1, 1, 3)) < 1e-13);
    CHECK(largest_difference(some.corrupted, all.corrupted.slice(1, 1, 3)) < 1e-13);
  }
}

TEST_CASE("nothing differs before the first corrupted position") {
  RandomExample example;
  const auto model = example.load({.dtype = at::kFloat, .memory = std::nullopt});
  for (const auto direction : kBoth) {
    example.options.direction = direction;
    for (const auto* rule : {"gradient", "integrated:2"}) {
      example.options.neurons->ranking = NeuronRule::parse(rule);
      const auto values = found(*model, example);
      CHECK(values.estimates[0].abs().max().item<double>() == 0);
      CHECK(values.change[0].abs().max().item<double>() == 0);
      CHECK(at::equal(values.corrupted[0], values.clean[0]));
      CHECK(values.estimates[1].abs().max().item<double>() > 1e-4);
    }
  }
}

TEST_CASE("values are known where nothing is ranked") {
  RandomExample example;
  const auto model = example.load();
  for (const auto direction : kBoth) {
    example.options.direction = direction;
    example.options.neurons->given.clear();
    example.options.neurons->ranking = {};
    const auto ranked = found(*model, example);
    example.options.neurons->ranking = NeuronRule::parse("none");
    const auto none = found(*model, example);
    CHECK_FALSE(none.estimates.defined());
    CHECK(largest_difference(none.corrupted, ranked.corrupted) < 1e-13);
    CHECK(largest_difference(none.change, ranked.change) < 1e-13);
    example.options.neurons->ranking = {};
    example.options.neurons->given = {{1, 7}, {2, 0}};
    const auto given = found(*model, example);
    CHECK_FALSE(given.estimates.defined());
    CHECK(largest_difference(given.clean, ranked.clean.slice(1, 1, 3)) == 0);
    CHECK(largest_difference(given.corrupted, ranked.corrupted.slice(1, 1, 3)) < 1e-13);
  }
}

TEST_CASE("a counter prompt and other corruptions are differentiated at") {
  RandomExample example;
  const auto model = example.load();
  example.options.samples = 1;
  for (const auto direction : kBoth) {
    example.options.direction = direction;
    for (const auto method : {CorruptionMethod::kZero, CorruptionMethod::kTokens}) {
      example.options.corruption.method = method;
      example.prompt.counter_ids.clear();
      if (method == CorruptionMethod::kTokens) example.prompt.counter_ids = {3, 1, 6, 5, 8};
      const auto clean = run_clean(*model, example.prompt, example.options);
      const auto values = neuron_values(*model, example.prompt, example.options, clean, {});
      const auto expected = estimates_by_definition(*model, example, clean);
      CHECK(largest_difference(values.estimates, expected) < 1e-12);
      CHECK(expected.abs().max().item<double>() > 1e-4);
    }
  }
}

TEST_CASE("lower precision gives the same estimates within its rounding, packed or not") {
  // bfloat16 keeps two to three digits of each product; what is left of them after four layers and back is one.
  RandomExample example;
  const auto model = example.load();
  for (const auto* rule : {"gradient", "integrated:2"}) {
    CAPTURE(std::string(rule));
    example.options.neurons->ranking = NeuronRule::parse(rule);
    const auto expected = found(*model, example);
    const auto largest = expected.estimates.abs().max().item<double>();
    for (const auto& [dtype, products, tolerance] : {std::tuple{at::kFloat, Products::kUnpacked, 1e-5},
                                                     {at::kFloat, Products::kFast, 1e-5},
                                                     {at::kBFloat16, Products::kUnpacked, 0.25},
                                                     {at::kBFloat16, Products::kFast, 0.25}}) {
      const auto other =
          example.load({.dtype = dtype, .products = products, .memory = std::nullopt, .transposes = Transposes::kNone});
      CHECK(largest_difference(found(*other, example).estimates, expected.estimates) < tolerance * largest);
    }
  }
}

TEST_CASE("noise beyond all numbers is an error that says so, whatever ranks") {
  RandomExample example;
  const auto model = example.load({.dtype = at::kFloat, .memory = std::nullopt});
  example.options.corruption.sigma = 1e39;
  for (const auto direction : kBoth) {
    example.options.direction = direction;
    for (const auto* rule : {"gradient", "integrated:2", "none"}) {
      example.options.neurons->ranking = NeuronRule::parse(rule);
      CHECK(message_of<Error>([&] { found(*model, example); }) == Contains("noise of scale 1e+39 is too large"));
    }
  }
}

TEST_CASE("a stop request ends the ranking with Interrupted") {
  RandomExample example;
  const auto model = example.load();
  for (const auto direction : kBoth) {
    example.options.direction = direction;
    const auto clean = run_clean(*model, example.prompt, example.options);
    for (const auto* rule : {"gradient", "integrated:2", "none"}) {
      example.options.neurons->ranking = NeuronRule::parse(rule);
      std::stop_source source;
      source.request_stop();
      RunControl control;
      control.stop = source.get_token();
      CHECK_THROWS_AS(neuron_values(*model, example.prompt, example.options, clean, control), Interrupted);
    }
  }
}

}  // namespace
}  // namespace rometrace::neuron_values_test

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "checks.hpp"
#include "closeness.hpp"
#include "files.hpp"
#include "golden_models.hpp"
#include "pretend/pretend_device.hpp"
#include "random_model.hpp"
#include "rometrace/edit/edit_file.hpp"
#include "rometrace/edit/measures.hpp"
#include "rometrace/edit/memit.hpp"
#include "rometrace/edit/rome.hpp"
#include "rometrace/edit/second_moment.hpp"
#include "rometrace/study/probe.hpp"
#include "rometrace/study/self_check.hpp"
#include "rometrace/trace/embedding_moments.hpp"
#include "rometrace/trace/gradient.hpp"
#include "rometrace/trace/plain.hpp"
#include "rometrace/trace/sweep.hpp"
#include "trace_closeness.hpp"
#include "trace_examples.hpp"

// What the engines compute on a device that is not the CPU is what they compute on it. The device is the tests' own
// (pretend_device.hpp); of a GPU it shows that nothing lies where it is not, not how a GPU rounds.

namespace rometrace::pretend_engines_test {
namespace {

using testing::Closeness;
using testing::compare;
using testing::Example;
using testing::golden_models;
using testing::pretend_device;
using testing::TemporaryFolder;

LoadOptions on_device(at::ScalarType dtype, int device = 0) {
  LoadOptions options;
  options.dtype = dtype;
  options.device = pretend_device(device);
  return options;
}

LoadOptions streamed(LoadOptions options) {
  options.memory = 0;
  return options;
}

LoadOptions on_host(at::ScalarType dtype) {
  LoadOptions options;
  options.dtype = dtype;
  options.processor.multiplies_bfloat16 = true;  // any CPU does, if slowly
  return options;
}

// compare() wants the numbers of the clean run to be of one run; these are of two, on two devices.
void compare_across(Trace found, const Trace& expected, const testing::TraceTolerances& tolerances) {
  Closeness clean(tolerances.scores);
  clean.compare("high_score", found.high_score, expected.high_score);
  clean.check();
  found.high_score = expected.high_score;
  compare(found, expected, tolerances);
}

Trace swept(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options,
            const RunControl& control = {}) {
  return trace_sweep(model, prompt, options, run_clean(model, prompt, options), control).trace;
}

RunControl tight(const Example& example, const Decoder& model) {
  RunControl control;
  control.memory = example.memory_rows * model.config().width * static_cast<std::int64_t>(sizeof(double));
  control.block_rows = example.block_rows;
  return control;
}

const std::vector<Kind>& every_kind() {
  static const std::vector<Kind> kinds = {Kind::kState,           Kind::kMlp,  Kind::kAttn,
                                          Kind::kStateMlpSevered, Kind::kHead, Kind::kKnockout,
                                          Kind::kStateAttnSevered};
  return kinds;
}

// Every kind at once, with neurons where the model has any.
TraceOptions every_kind_of(const Decoder& model, Direction direction) {
  TraceOptions options;
  options.kinds = every_kind();
  options.window = 3;
  options.direction = direction;
  options.samples = 3;
  options.corruption.sigma = 0.5;
  if (model.config().experts) return options;
  auto& neurons = options.neurons.emplace();
  neurons.given = {{0, 1}, {model.config().layers - 1, 0}};
  return options;
}

TracePrompt short_prompt() {
  TracePrompt prompt;
  prompt.token_ids = {1, 4, 2, 5, 3, 6};
  prompt.subject_range = {1, 3};
  prompt.target = {2, 1};
  return prompt;
}

TEST_CASE("on a device the sweep's traces are the CPU's, in every family, whatever is asked of them") {
  std::int64_t several_passes = 0;
  unsigned seed = 0;
  for (const auto& golden : golden_models()) {
    CAPTURE(golden.name);
    Example example(++seed, golden);
    example.widen();
    CAPTURE(example.description());
    const auto host = example.load(at::kDouble), device = example.load(on_device(at::kDouble, seed % 2));
    const auto expected = swept(*host, example.prompt, example.options);
    compare_across(swept(*device, example.prompt, example.options), expected, testing::kDoubleTraces);
    const auto clean = run_clean(*device, example.prompt, example.options);
    const auto cut = trace_sweep(*device, example.prompt, example.options, clean, tight(example, *device));
    several_passes += cut.passes > 1 ? 1 : 0;
    compare_across(cut.trace, expected, testing::kDoubleTraces);
  }
  CHECK(several_passes > seed / 4);
}

TEST_CASE("on a device each kind, and neurons, are the CPU's in both directions, and by one run a cell") {
  for (const auto& golden : golden_models()) {
    const auto host = Decoder::load(golden.folder, on_host(at::kDouble));
    const auto& config = host->config();
    // One of each thing that a family may bring; the others have been swept above.
    static const std::vector<std::string> kSome = {"default_fields", "bloom",           "gemma2",
                                                   "gpt_oss",        "mixtral_sliding", "gptj",
                                                   "mpt_clipped",    "olmo2",           "qwen3_sliding"};
    if (std::find(kSome.begin(), kSome.end(), golden.name) == kSome.end()) continue;
    CAPTURE(golden.name);
    REQUIRE(config.layers > 1);
    const auto device = Decoder::load(golden.folder, on_device(at::kDouble));
    const auto prompt = short_prompt();
    for (const auto direction : {Direction::kDenoising, Direction::kNoising, Direction::kBoth}) {
      auto options = every_kind_of(*host, direction);
      if (direction == Direction::kBoth) options.neurons.reset();
      const auto expected = swept(*host, prompt, options);
      compare_across(swept(*device, prompt, options), expected, testing::kDoubleTraces);
      const auto plain = trace_plain(*device, prompt, options, run_clean(*device, prompt, options));
      compare_across(plain, expected, testing::kDoubleTraces);
    }
  }
}

TEST_CASE("on a device float32 is the CPU's to rounding") {
  for (const auto& golden : golden_models()) {
    CAPTURE(golden.name);
    if (golden.golden.at("traces").empty()) continue;
    const auto host = Decoder::load(golden.folder, on_host(at::kFloat));
    const auto device = Decoder::load(golden.folder, on_device(at::kFloat));
    const auto& trace = golden.golden.at("traces").front();
    const auto prompt = testing::golden_prompt(trace);
    const auto options = testing::golden_options(trace);
    compare_across(swept(*device, prompt, options), swept(*host, prompt, options), testing::kFloatTraces);
  }
}

TEST_CASE("on a device 16 bits give scores near float32's, with every kind, by both engines") {
  for (const auto dtype : {at::kBFloat16, at::kHalf}) {
    CAPTURE(dtype);
    // Three digits a product (float16), or two, over some layers of models with logits of a few units.
    const double rounding = dtype == at::kHalf ? 0.02 : 0.05;
    Closeness to_float({0, rounding}), to_plain({0, rounding / 2});
    double moved = 0;
    for (const auto& golden : golden_models()) {
      if (golden.name.find("default_fields") == std::string::npos) continue;  // a model of each family
      CAPTURE(golden.name);
      const auto host = Decoder::load(golden.folder, on_host(at::kFloat));
      const auto device = Decoder::load(golden.folder, on_device(dtype));
      auto prompt = short_prompt();
      auto options = every_kind_of(*host, Direction::kDenoising);
      options.corruption.sigma = 5;  // for effects that are larger than the rounding, as what the model says has
      prompt.target.clear();
      prompt.target = run_clean(*host, prompt, options).trace.answer_ids;
      const auto exact = swept(*host, prompt, options), found = swept(*device, prompt, options);
      const auto plain = trace_plain(*device, prompt, options, run_clean(*device, prompt, options));
      REQUIRE(found.grids.size() == options.kinds.size());
      for (std::size_t g = 0; g < exact.grids.size(); ++g) {
        REQUIRE(found.grids[g].scores.size() == exact.grids[g].scores.size());
        for (std::size_t i = 0; i < exact.grids[g].scores.size(); ++i) {
          const auto cell = golden.name + " " + std::string(to_string(exact.grids[g].kind));
          to_float.compare(cell, found.grids[g].scores[i], exact.grids[g].scores[i]);
          to_plain.compare(cell, found.grids[g].scores[i], plain.grids[g].scores[i]);
          moved = std::max(moved, std::abs(exact.grids[g].scores[i] - exact.low_score));
        }
      }
    }
    CHECK(moved > 4 * rounding);
    to_float.check();
    to_plain.check();
  }
}

TEST_CASE("on a device facts that share a sweep have the scores that each has alone on the CPU") {
  for (unsigned seed = 2000; seed < 2025; ++seed) {
    CAPTURE(seed);
    Example example(seed);
    example.widen();
    CAPTURE(example.description());
    const auto host = example.load(at::kDouble), device = example.load(on_device(at::kDouble, 1));
    const auto prompts = example.prompts_of_its_shape(2 + seed % 3);
    std::vector<CleanRun> cleans;
    std::vector<SweepFact> facts;
    for (const auto& prompt : prompts) cleans.push_back(run_clean(*device, prompt, example.options));
    for (std::size_t i = 0; i < prompts.size(); ++i) facts.push_back({&prompts[i], &cleans[i]});
    const auto shared = trace_sweeps(*device, facts, example.options);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      REQUIRE(std::holds_alternative<Trace>(shared.outcomes[i]));
      compare_across(std::get<Trace>(shared.outcomes[i]), swept(*host, prompts[i], example.options),
                     testing::kDoubleTraces);
    }
  }
}

TEST_CASE("on a device layers that are read each time that they are used give what held ones give on the CPU") {
  unsigned seed = 0;
  for (const auto& golden : golden_models()) {
    if (++seed % 3 != 0) continue;  // all kinds of files are among them
    CAPTURE(golden.name);
    Example example(seed, golden);
    example.widen();
    const auto host = example.load(at::kDouble), device = example.load(streamed(on_device(at::kDouble)));
    REQUIRE(device->streamed());
    compare_across(swept(*device, example.prompt, example.options), swept(*host, example.prompt, example.options),
                   testing::kDoubleTraces);
  }
}

TEST_CASE("on a device gradients are the CPU's, held or streamed, with little memory, in both directions") {
  unsigned seed = 0;
  for (const auto& golden : golden_models()) {
    if (++seed % 4 != 0) continue;
    CAPTURE(golden.name);
    const auto host = Decoder::load(golden.folder, on_host(at::kDouble));
    const auto prompt = short_prompt();
    TraceOptions options;
    options.kinds = {Kind::kState, Kind::kMlp, Kind::kAttn, Kind::kHead};
    options.window = 2;
    options.direction = seed % 8 == 0 ? Direction::kNoising : Direction::kDenoising;
    options.samples = 3;
    options.corruption.sigma = 0.5;
    const auto expected = trace_gradient(*host, prompt, options, run_clean(*host, prompt, options));
    for (const auto& how : {on_device(at::kDouble), streamed(on_device(at::kDouble))}) {
      const auto device = Decoder::load(golden.folder, how);
      RunControl control;
      control.memory = device->streamed() ? 1 : control.memory;
      const auto clean = run_clean(*device, prompt, options);
      compare_across(trace_gradient(*device, prompt, options, clean, control), expected,
                     {{1e-8, 1e-10}, {1e-6, 1e-9}, {1e-8, 1e-9}});
    }
  }
}

TEST_CASE("on a device neurons that are ranked, and their sets, are the CPU's") {
  for (const std::string rule : {"gradient", "integrated:3", "none"}) {
    CAPTURE(rule);
    for (const auto direction : {Direction::kDenoising, Direction::kNoising}) {
      std::mt19937 engine(5);
      const TemporaryFolder folder;
      testing::write_random_model(folder, {.layers = 3, .inner = 6, .positions = 8}, engine);
      const auto host = Decoder::load(folder.path(), on_host(at::kDouble));
      TraceOptions options;
      options.kinds = {Kind::kState};
      options.direction = direction;
      options.samples = 2;
      options.corruption.sigma = 0.7;
      auto& neurons = options.neurons.emplace();
      neurons.ranking = NeuronRule::parse(rule);
      neurons.sets_by_layer = true;
      const auto expected = swept(*host, short_prompt(), options);
      for (const auto& how : {on_device(at::kDouble), streamed(on_device(at::kDouble))}) {
        const auto device = Decoder::load(folder.path(), how);
        compare_across(swept(*device, short_prompt(), options), expected, testing::kDoubleTraces);
      }
    }
  }
}

TEST_CASE("on a device corruptions of every method are the CPU's") {
  std::mt19937 engine(6);
  const TemporaryFolder folder;
  testing::write_random_model(folder, {.layers = 2, .positions = 8}, engine);
  const auto host = Decoder::load(folder.path(), on_host(at::kDouble));
  const auto device = Decoder::load(folder.path(), on_device(at::kDouble));
  const std::vector<std::int32_t> text = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 1};
  const auto moments = std::make_shared<const EmbeddingMoments>(embedding_moments(*device, text));
  CHECK(testing::largest_difference(moments->mean.cpu(), embedding_moments(*host, text).mean) < 1e-15);
  auto prompt = short_prompt();
  for (const auto method : {CorruptionMethod::kZero, CorruptionMethod::kMean, CorruptionMethod::kNoise}) {
    TraceOptions options;
    options.kinds = {Kind::kState, Kind::kMlp};
    options.window = 1;
    options.samples = method == CorruptionMethod::kNoise ? 2 : 1;
    options.corruption.method = method;
    options.corruption.distribution = NoiseRule::Distribution::kMultivariate;
    options.corruption.sigma = 1;
    options.corruption.moments = moments;
    compare_across(swept(*device, prompt, options), swept(*host, prompt, options), testing::kDoubleTraces);
  }
}

EditRequest request_of_short_texts() {
  EditRequest request;
  request.target_ids = {4, 6};
  request.texts = {{{1, 2, 3, 5}, 1}, {{6, 6, 1, 2, 3, 5}, 3}, {{4, 1, 2, 3, 5}, 2}};
  request.subject_alone = {{1, 2}, 1};
  return request;
}

double distance(const at::Tensor& found, const at::Tensor& expected) {
  REQUIRE(found.device().is_cpu());
  return (found - expected).norm().item<double>() / expected.norm().item<double>();
}

std::shared_ptr<const Decoder> changed(const Decoder& model, std::span<const LayerChange> changes) {
  std::vector<MatrixChange> matrices;
  for (const auto& change : changes) matrices.push_back(edited_matrix(model, change).change);
  return model.with_changes(matrices);
}

TEST_CASE("on a device edits, and what they are measured by, are the CPU's, held or streamed") {
  const auto request = request_of_short_texts();
  ValueOptions options;
  options.steps = 4;
  const std::vector<std::vector<std::int32_t>> prompts = {{1, 2, 3, 5}, {3, 4, 1}};
  unsigned seed = 0;
  for (const auto& golden : golden_models()) {
    if (++seed % 5 != 0) continue;
    const auto host = Decoder::load(golden.folder, on_host(at::kDouble));
    if (host->config().experts || host->config().layers < 2) continue;
    CAPTURE(golden.name);
    for (const auto& how : {on_device(at::kDouble), streamed(on_device(at::kDouble))}) {
      const auto device = Decoder::load(golden.folder, how);
      // Below the last layer: there what is edited does not reach the answer, and Adam steps by the signs of rounding.
      for (const auto engine : {EditEngine::kPlain, EditEngine::kFast}) {
        options.engine = engine;
        const auto expected = edit_rank_one(EditMethod::kRRome, *host, request, 0, options, {});
        const auto found = edit_rank_one(EditMethod::kRRome, *device, request, 0, options, {});
        CHECK(distance(found.change.u, expected.change.u) < 1e-9);
        CHECK(distance(found.change.r, expected.change.r) < 1e-6);
      }
      const auto memit = [&](const Decoder& of) {
        const std::vector<EditRequest> requests = {request};
        const std::vector<std::int64_t> layers = {0, 1};
        const auto adjusted = [](std::int64_t, const at::Tensor& keys) { return keys / (1 + keys.square().sum()); };
        return edit_memit(of, requests, layers, options, adjusted,
                          [&](std::span<const LayerChange> so_far) { return changed(of, so_far); });
      };
      const auto expected = memit(*host), found = memit(*device);
      REQUIRE(found.changes.size() == 2);
      for (std::size_t i = 0; i < 2; ++i) {
        CHECK(distance(found.changes[i].u, expected.changes[i].u) < 1e-6);
        CHECK(distance(found.changes[i].r, expected.changes[i].r) < 1e-6);
      }
      const auto host_edited = changed(*host, expected.changes), device_edited = changed(*device, expected.changes);
      const std::vector<std::int32_t> other = {3, 2};
      const auto measured = measure_prompts(*device_edited, prompts, request.target_ids, other, {});
      const auto as_measured = measure_prompts(*host_edited, prompts, request.target_ids, other, {});
      for (std::size_t i = 0; i < prompts.size(); ++i) {
        CHECK(measured[i].greedy == as_measured[i].greedy);
        CHECK(measured[i].top_id == as_measured[i].top_id);
        CHECK(measured[i].new_object.nll() == doctest::Approx(as_measured[i].new_object.nll()).epsilon(1e-9));
      }
      CHECK(perplexity(*device_edited, prompts) == doctest::Approx(perplexity(*host_edited, prompts)).epsilon(1e-9));
    }
  }
}

TEST_CASE("on a device second moments are the CPU's in float64, float32 and 16 bits, held or streamed") {
  std::mt19937 draw(7);
  MomentText text;
  text.sha256 = "of the text";
  text.texts = 40;
  text.cut = 8;
  for (std::int64_t i = 0; i < text.texts; ++i) {
    for (auto left = 1 + draw() % 8; left > 0; --left) text.token_ids.push_back(static_cast<std::int32_t>(draw() % 7));
    text.ends.push_back(text.tokens());
  }
  const std::vector<std::int64_t> layers = {1, 0};
  for (const auto& golden : golden_models()) {
    static const std::vector<std::string> kSome = {"default_fields", "bloom", "gemma2", "llama_grouped"};
    if (std::find(kSome.begin(), kSome.end(), golden.name) == kSome.end()) continue;
    CAPTURE(golden.name);
    const auto expected = second_moments(*Decoder::load(golden.folder, on_host(at::kDouble)), text, layers);
    for (const auto& [dtype, rounding] :
         {std::pair{at::kDouble, 1e-12}, {at::kFloat, 1e-5}, {at::kHalf, 1e-2}, {at::kBFloat16, 5e-2}}) {
      for (const auto& how : {on_device(dtype), streamed(on_device(dtype))}) {
        const auto found = second_moments(*Decoder::load(golden.folder, how), text, layers);
        REQUIRE(found.size() == expected.size());
        for (std::size_t i = 0; i < found.size(); ++i) {
          CHECK(distance(found[i].mean, expected[i].mean) < rounding);
        }
      }
    }
  }
}

TEST_CASE("on a device probes are the CPU's, and a self-check finds that all holds") {
  const std::filesystem::path demo = ROMETRACE_SOURCE_DIR "/share/rometrace/demo";
  const auto tokenizer = Tokenizer::load(demo);
  std::vector<Fact> facts;
  ObjectChoices choices(tokenizer);
  const auto add = [&](const std::string& subject, const std::string& object, const std::vector<std::string>& prompts) {
    auto& fact = facts.emplace_back();
    fact.subject = subject;
    fact.object = object;
    for (const auto& prompt : prompts) fact.wordings.push_back({prompt, false, find_subject(prompt, subject)});
    choices.add(fact);
  };
  add("Miles Davis", "trumpet", {"Miles Davis plays the", "The instrument that Miles Davis plays is the"});
  add("Toulouse", "France", {"Toulouse belongs to"});
  add("Glenn Gould", "piano", {"Glenn Gould plays the"});
  std::vector<const Fact*> all;
  for (const auto& fact : facts) all.push_back(&fact);
  const auto host = Decoder::load(demo, on_host(at::kDouble)), device = Decoder::load(demo, on_device(at::kDouble));
  const auto expected = probe_facts(*host, tokenizer, choices, all),
             found = probe_facts(*device, tokenizer, choices, all);
  for (std::size_t i = 0; i < facts.size(); ++i) {
    REQUIRE(found[i].wordings.size() == facts[i].wordings.size());
    for (std::size_t w = 0; w < found[i].wordings.size(); ++w) {
      const auto &one = found[i].wordings[w], &other = expected[i].wordings[w];
      CHECK(one.probability == doctest::Approx(other.probability).epsilon(1e-9));
      CHECK(one.answer_probability == doctest::Approx(other.answer_probability).epsilon(1e-9));
      CHECK(one.rank == other.rank);
      CHECK(one.choice_rank == other.choice_rank);
      CHECK(one.answer_id == other.answer_id);
    }
  }
  std::size_t checked = 0;
  const SelfCheck check{*device, tokenizer, 0.1, {}, false, {}, {}};
  const bool holds = self_check(check, [&](const Finding& finding) {
    CHECK_MESSAGE(finding.outcome != Finding::Outcome::kFails, finding.claim << ": " << finding.detail);
    checked += finding.outcome == Finding::Outcome::kHolds ? 1 : 0;
  });
  CHECK(holds);
  CHECK(checked > 3);
}

}  // namespace
}  // namespace rometrace::pretend_engines_test

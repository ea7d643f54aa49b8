#include "rometrace/trace/neurons.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <tuple>

#include "checks.hpp"
#include "closeness.hpp"
#include "golden_methods.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "rometrace/trace/plain.hpp"
#include "rometrace/trace/sweep.hpp"

// Neurons in both engines, against an independent tracer over transformers (tests/judge/make_neuron_goldens.py) and
// against laws that need no numbers from elsewhere.

namespace rometrace::neurons_test {
namespace {

using nlohmann::json;
using testing::Closeness;

struct Engine {
  const char* name;
  std::function<Trace(const Decoder&, const TracePrompt&, const TraceOptions&, const CleanRun&)> trace;
};

const std::vector<Engine>& engines() {
  static const std::vector<Engine> both = {
      {"plain", [](const auto& model, const auto& prompt, const auto& options,
                   const auto& clean) { return trace_plain(model, prompt, options, clean); }},
      {"sweep", [](const auto& model, const auto& prompt, const auto& options, const auto& clean) {
         return trace_sweep(model, prompt, options, clean).trace;
       }}};
  return both;
}

std::filesystem::path goldens() {
  return std::filesystem::path(ROMETRACE_SOURCE_DIR) / "tests/goldens";
}

std::vector<std::int64_t> numbers_of(const json& list) {
  return list.get<std::vector<std::int64_t>>();
}

NeuronOptions neuron_options(const json& golden) {
  const auto& from = golden.at("neurons");
  NeuronOptions options;
  options.positions = {PositionRule::Which::kList, numbers_of(from.at("positions"))};
  if (!from.at("layers").is_null()) options.layers = LayerRange{from.at("layers")[0], from.at("layers")[1]};
  options.top = from.at("top");
  options.ranking = NeuronRule::parse(from.at("ranking").get<std::string>());
  for (const auto& neuron : from.at("given")) options.given.push_back({neuron[0], neuron[1]});
  options.sets_by_layer = from.at("sets_by_layer");
  return options;
}

// --- Against the goldens ---------------------------------------------------------------------------------------------

struct Differences {
  Closeness scores{{1e-9, 1e-12}};
  // Of deviations that may be small beside the values they are of.
  Closeness errors{{1e-6, 1e-9}};
  // Logits, ranks, divergences; values and rows, which may be near 0.
  Closeness values{{1e-9, 1e-9}};
};

void compare_number(Closeness& closeness, const std::string& where, double found, const json& expected) {
  closeness.compare(where, found, expected.is_null() ? std::nan("") : expected.get<double>());
}

void compare_run(Differences& all, const std::string& where, const Trace& trace, const RunScore& run,
                 const json& golden, const json& expected) {
  compare_number(all.scores, where + " score", run.score, expected.at("score"));
  compare_number(all.errors, where + " standard_error", run.standard_error, expected.at("standard_error"));
  const bool denoising = golden.at("options").at("direction") == "denoising";
  const double effect = denoising ? run.score - trace.low_score : trace.high_score - run.score;
  compare_number(all.scores, where + " indirect_effect", effect, expected.at("indirect_effect"));
  REQUIRE(run.measured.size() == trace.measured.size());
  const auto compare_measured = [&](const Reading& reading, const char* value, const json& of) {
    const auto place = testing::place_of(trace, reading);
    REQUIRE(place < run.measured.size());
    compare_number(all.values, where + " measured", run.measured[place].value, of.at(value));
    compare_number(all.errors, where + " measured", run.measured[place].standard_error, of.at("standard_error"));
  };
  for (const auto& name : golden.at("options").at("measures")) {
    const auto which = testing::named(
        name, {Measure::kLogProbability, Measure::kLogit, Measure::kLogitDifference, Measure::kRank, Measure::kKl});
    compare_measured({which, 0}, "value", expected.at("measures").at(name.get<std::string>()));
  }
  for (std::size_t i = 0; i < golden.at("options").at("other_targets").size(); ++i) {
    compare_measured({Measure::kProbability, i + 1}, "score", expected.at("other_targets")[i]);
  }
}

void compare_tokens(Differences& all, const std::string& where, const std::vector<TokenLogit>& found,
                    const json& expected) {
  REQUIRE(found.size() >= expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CHECK(found[i].id == expected[i].at("id"));
    compare_number(all.values, where + " logit", found[i].logit, expected[i].at("logit"));
  }
}

void compare_effect(Differences& all, const Trace& trace, const NeuronEffect& found, const json& golden,
                    const json& expected) {
  const auto where = "neuron " + std::to_string(found.layer) + ":" + std::to_string(found.neuron) + " at " +
                     std::to_string(found.position);
  compare_number(all.scores, where + " estimate", found.estimate, expected.at("estimate"));
  compare_run(all, where, trace, found.run, golden, expected);
  compare_number(all.values, where + " clean", found.clean, expected.at("value").at("clean"));
  compare_number(all.values, where + " corrupted", found.corrupted, expected.at("value").at("corrupted"));
  compare_number(all.values, where + " row_norm", found.row_norm, expected.at("row_norm"));
  compare_tokens(all, where + " promotes", found.promotes, expected.at("promotes"));
  compare_tokens(all, where + " suppresses", found.suppresses, expected.at("suppresses"));
}

void compare_set(Differences& all, const Trace& trace, const NeuronSet& found, const json& golden,
                 const json& expected) {
  CHECK(found.position == expected.at("position"));
  CHECK(found.layer.has_value() == expected.contains("layer"));
  if (found.layer) CHECK(*found.layer == expected.at("layer"));
  CHECK(found.neurons == expected.at("neurons"));
  compare_run(all, "set of " + std::to_string(found.neurons), trace, found.run, golden, expected);
}

// Controls by what they are, as they may stand in any order.
using ControlPlace = std::tuple<std::string, std::int64_t, std::int64_t, std::int64_t>;

std::map<ControlPlace, json> controls_by_place(const json& controls) {
  std::map<ControlPlace, json> result;
  for (const auto& control : controls) {
    result[{control.at("order"), control.at("position"), control.value("layer", std::int64_t{-1}),
            control.at("neurons")}] = control;
  }
  return result;
}

// Effects by what they are of: those of neurons before the subject are all 0, and stand in any order.
void compare_effects(Differences& all, const Trace& trace, const json& golden) {
  using Place = std::tuple<std::int64_t, std::int64_t, std::int64_t>;
  const auto& expected = golden.at("results").at("neurons").at("effects");
  std::map<Place, json> by_place;
  for (const auto& effect : expected) {
    by_place[{effect.at("position"), effect.at("layer"), effect.at("neuron")}] = effect;
  }
  CHECK(trace.neurons->effects.size() == expected.size());
  const bool denoising = golden.at("options").at("direction") == "denoising";
  double before = HUGE_VAL;
  for (const auto& effect : trace.neurons->effects) {
    const auto at = by_place.find({effect.position, effect.layer, effect.neuron});
    REQUIRE(at != by_place.end());
    compare_effect(all, trace, effect, golden, at->second);
    const double size = std::abs(effect.run.score - (denoising ? trace.low_score : trace.high_score));
    CHECK(size <= before);
    before = size;
  }
}

void compare_neurons(const Trace& trace, const json& golden) {
  REQUIRE(trace.neurons.has_value());
  const auto& found = *trace.neurons;
  const auto& results = golden.at("results");
  const auto& expected = results.at("neurons");
  Differences all;
  CHECK(trace.answer_ids == results.at("answer_ids").get<std::vector<std::int32_t>>());
  all.scores.compare("high_score", trace.high_score, results.at("high_score"));
  all.scores.compare("low_score", trace.low_score, results.at("low_score"));
  CHECK(found.positions == numbers_of(expected.at("positions")));
  CHECK(found.layers == LayerRange{expected.at("layers")[0], expected.at("layers")[1]});
  CHECK(found.given == (expected.at("ranked_by") == "given"));
  if (!found.given) CHECK(to_string(found.ranked_by) == expected.at("ranked_by").get<std::string>());
  CHECK(found.candidates == expected.at("candidates"));
  compare_effects(all, trace, golden);
  const auto compare_sets = [&](const std::vector<NeuronSet>& sets, const char* name) {
    const auto wanted = expected.value(name, json::array());
    REQUIRE(sets.size() == wanted.size());
    for (std::size_t i = 0; i < sets.size(); ++i) compare_set(all, trace, sets[i], golden, wanted[i]);
  };
  compare_sets(found.sets, "sets");
  compare_sets(found.sets_by_layer, "sets_by_layer");
  const auto controls = controls_by_place(expected.value("controls", json::array()));
  CHECK(found.controls.size() == controls.size());
  for (const auto& control : found.controls) {
    const auto at = controls.find({std::string(to_string(control.order)), control.set.position,
                                   control.set.layer.value_or(-1), control.set.neurons});
    REQUIRE(at != controls.end());
    compare_set(all, trace, control.set, golden, at->second);
  }
  const auto halves = expected.value("half", json::array());
  REQUIRE(found.half.size() == halves.size());
  for (std::size_t i = 0; i < halves.size(); ++i) {
    CHECK(found.half[i].position == halves[i].at("position"));
    CHECK(found.half[i].layer.value_or(-1) == halves[i].value("layer", std::int64_t{-1}));
    CHECK(found.half[i].candidates == halves[i].at("candidates"));
    CHECK(found.half[i].neurons.value_or(-1) ==
          (halves[i].at("neurons").is_null() ? -1 : halves[i].at("neurons").get<std::int64_t>()));
  }
  all.scores.check();
  all.errors.check();
  all.values.check();
}

// Of every neuron: those that are run when all are asked for.
void compare_estimates(const Trace& trace, const json& golden) {
  const auto& expected = golden.at("results").at("estimates");
  const auto first = trace.neurons->layers.begin;
  CHECK(std::ssize(trace.neurons->effects) == trace.neurons->candidates);
  Closeness estimates({1e-9, 1e-12});
  for (const auto& effect : trace.neurons->effects) {
    const auto& of_layer =
        expected.at(std::to_string(effect.position)).at(static_cast<std::size_t>(effect.layer - first));
    estimates.compare("estimate of " + std::to_string(effect.layer) + ":" + std::to_string(effect.neuron),
                      effect.estimate, of_layer.at(static_cast<std::size_t>(effect.neuron)));
  }
  estimates.check();
}

TEST_CASE("both engines give the neurons of an independent tracer") {
  std::map<std::string, std::shared_ptr<const Decoder>> models;
  const auto traces = testing::read_golden(goldens() / "neurons.json").at("traces");
  CHECK(!traces.empty());
  for (const auto& golden : traces) {
    const std::string about = golden.at("about"), name = golden.at("model");
    CAPTURE(about);
    auto& model = models[name];
    if (!model) model = Decoder::load(goldens() / "models" / name, at::kDouble);
    const auto prompt = testing::golden_method_prompt(golden);
    auto options = testing::golden_method_options(*model, golden);
    options.neurons = neuron_options(golden);
    const auto clean = run_clean(*model, prompt, options);
    for (const auto& engine : engines()) {
      CAPTURE(std::string(engine.name));
      compare_neurons(engine.trace(*model, prompt, options, clean), golden);
    }
    if (golden.at("results").at("estimates").is_null()) continue;
    options.neurons->top = 1'000'000'000;
    options.neurons->sets_by_layer = false;
    compare_estimates(trace_sweep(*model, prompt, options, clean).trace, golden);
  }
}

// --- Laws ------------------------------------------------------------------------------------------------------------

// Goldens that together have every family and every order of norms and residuals.
constexpr const char* kNames[] = {"narrow_mlp", "gptj",           "gpt_neo", "gpt_neox", "gpt_neox_sequential",
                                  "opt",        "opt_norm_after", "llama",   "mistral",  "qwen2",
                                  "qwen3",      "gemma",          "gemma2",  "gemma3",   "gemma3_multimodal"};

struct Example {
  std::shared_ptr<const Decoder> model;
  TracePrompt prompt;
  TraceOptions options;

  explicit Example(const char* name, Direction direction = Direction::kDenoising)
      : model(Decoder::load(goldens() / "models" / name, at::kDouble)) {
    prompt.token_ids = {3, 14, 15, 9, 26, 7, 31};
    prompt.subject_range = {1, 3};
    prompt.target = {5};
    options.kinds.clear();
    options.direction = direction;
    options.samples = 2;
    options.corruption.sigma = 1.5;
    options.neurons = NeuronOptions();
    options.neurons->top = 1;
  }

  Trace trace(const Engine& engine) const {
    return engine.trace(*model, prompt, options, run_clean(*model, prompt, options));
  }

  // Every neuron at its position, with its own effect and, where all together are a set, theirs.
  Trace every(const Engine& engine) {
    options.neurons->ranking = {NeuronRule::Which::kNone, 1};
    options.neurons->top = 1'000'000'000;
    return trace(engine);
  }
};

// The score of all neurons of the chosen layers together, at the one position.
double score_of_all(const Trace& trace) {
  const auto& last = trace.neurons->sets.back();
  CHECK(last.neurons == trace.neurons->candidates);
  return last.run.score;
}

TEST_CASE("all neurons of a layer together are its MLP, and all of all layers are all MLPs") {
  for (const char* name : kNames) {
    CAPTURE(std::string(name));
    for (const auto direction : {Direction::kDenoising, Direction::kNoising}) {
      Example example(name, direction);
      const auto L = example.model->config().layers;
      for (const std::int64_t position : {std::int64_t{2}, std::int64_t{6}}) {
        example.options.neurons->positions = {PositionRule::Which::kList, {position}};
        for (const auto& engine : engines()) {
          if (position == 6 && &engine == &engines().front()) continue;  // takes long
          CAPTURE(std::string(engine.name));
          Closeness scores({1e-9, 1e-12});
          const auto mlp = [&](std::int64_t window) {
            auto options = example.options;
            options.neurons.reset();
            options.kinds = {Kind::kMlp};
            options.window = window;
            options.positions = {PositionRule::Which::kList, {position}};
            return engine.trace(*example.model, example.prompt, options,
                                run_clean(*example.model, example.prompt, options));
          };
          const auto single = mlp(1), all = mlp(2 * L);
          for (std::int64_t layer = 0; layer < L; ++layer) {
            example.options.neurons->layers = LayerRange{layer, layer + 1};
            scores.compare("layer " + std::to_string(layer), score_of_all(example.trace(engine)),
                           single.grids[0].scores[static_cast<std::size_t>(layer)]);
          }
          example.options.neurons->layers.reset();
          scores.compare("all layers", score_of_all(example.trace(engine)), all.grids[0].scores[0]);
          scores.check();
        }
      }
    }
  }
}

TEST_CASE("a neuron whose values do not differ has no effect") {
  for (const char* name : kNames) {
    CAPTURE(std::string(name));
    for (const auto direction : {Direction::kDenoising, Direction::kNoising}) {
      for (const auto& engine : engines()) {
        CAPTURE(std::string(engine.name));
        Example example(name, direction);
        // Before the subject no neuron differs. In it they do, and behind it unless attention and MLP are parallel; the
        // last token sees the one or the other, whatever the window of attention.
        example.options.neurons->positions = {PositionRule::Which::kList, {0, 2, 4}};
        const auto trace = example.every(engine);
        const double base = direction == Direction::kDenoising ? trace.low_score : trace.high_score;
        double largest = 0;
        std::int64_t unchanged = 0;
        for (const auto& effect : trace.neurons->effects) {
          const double change = std::abs(effect.run.score - base);
          if (effect.position > 0) {
            largest = std::max(largest, change);
            continue;
          }
          ++unchanged;
          CHECK(effect.clean == doctest::Approx(effect.corrupted).epsilon(1e-12));
          CHECK(change <= 1e-14);
        }
        CHECK(3 * unchanged == trace.neurons->candidates);
        CHECK(largest > 1e-6);
      }
    }
  }
}

TEST_CASE("without noise every neuron and every set gives the clean score") {
  for (const char* name : {"narrow_mlp", "opt_norm_after", "gemma2"}) {
    CAPTURE(std::string(name));
    for (const auto direction : {Direction::kDenoising, Direction::kNoising}) {
      for (const auto& engine : engines()) {
        Example example(name, direction);
        example.options.corruption.sigma = 0;
        const auto trace = example.trace(engine);
        Closeness scores({1e-12, 1e-14});
        for (const auto& effect : trace.neurons->effects) {
          scores.compare("neuron", effect.run.score, trace.high_score);
          scores.compare("estimate", effect.estimate, 0);
        }
        for (const auto& set : trace.neurons->sets) scores.compare("set", set.run.score, trace.high_score);
        for (const auto& control : trace.neurons->controls) {
          scores.compare("control", control.set.run.score, trace.high_score);
        }
        scores.check();
      }
    }
  }
}

TEST_CASE("integrated estimates add up to the effect of all neurons together") {
  double largest = 0;
  for (const char* name : {"narrow_mlp", "gpt_neox", "llama", "gemma2"}) {
    CAPTURE(std::string(name));
    for (const auto direction : {Direction::kDenoising, Direction::kNoising}) {
      Example example(name, direction);
      example.options.neurons->ranking = {NeuronRule::Which::kIntegrated, 64};
      example.options.neurons->top = 1'000'000'000;
      const auto trace = example.trace(engines().back());
      double sum = 0;
      for (const auto& effect : trace.neurons->effects) sum += effect.estimate;
      const double all = score_of_all(trace);
      const double effect = direction == Direction::kDenoising ? all - trace.low_score : trace.high_score - all;
      // 64 points of the integral.
      CHECK(std::abs(sum - effect) <= 1e-3 * std::abs(effect) + 1e-6);
      largest = std::max(largest, std::abs(effect));
    }
  }
  CHECK(largest > 1e-3);
}

}  // namespace
}  // namespace rometrace::neurons_test

#include "cli/options/idle_options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <initializer_list>
#include <string>
#include <vector>

namespace rometrace::cli {
namespace {

/// Where an option does something.
struct Use {
  const char* name;
  bool (*works)(const Options&);
  const char* expected;
};

template <typename Value>
bool has_any(const std::vector<Value>& values, std::initializer_list<Value> wanted) {
  return std::find_first_of(values.begin(), values.end(), wanted.begin(), wanted.end()) != values.end();
}

bool traces(const Options& options) {
  return !options.facts || !options.facts->probe;
}

bool is_noise(const Options& options) {
  return options.method == CorruptionMethod::kNoise;
}

bool has_neurons(const Options& options) {
  return options.neurons.has_value();
}

bool ranks_neurons(const Options& options) {
  return options.neurons && options.neurons->given.empty();
}

bool patches(const Options& options) {
  return has_neurons(options) ||
         std::any_of(options.kinds.begin(), options.kinds.end(), [](Kind kind) { return kind != Kind::kKnockout; });
}

bool is_of_text(const Options& options) {
  using Distribution = NoiseRule::Distribution;
  const auto distribution = options.noise.distribution;
  return options.method == CorruptionMethod::kMean || distribution == Distribution::kMultivariate ||
         distribution == Distribution::kStudent;
}

constexpr const char* kTrace = "a trace; --probe makes none";
constexpr const char* kNeuron = "neuron among --kinds";
constexpr const char* kRanked = "neurons that are ranked, not those of --neurons";
constexpr const char* kNoise = "noise, which is not what corrupts here";

/// All options of a trace and of a batch that there is a place for where they do nothing. The first line that does not
/// hold counts.
constexpr Use kUses[] = {
    {"--kinds", &traces, kTrace},
    {"--sever", &traces, kTrace},
    {"--positions", &traces, kTrace},
    {"--window", &traces, kTrace},
    {"--head-window", &traces, kTrace},
    {"--knockout-window", &traces, kTrace},
    {"--layers", &traces, kTrace},
    {"--rank-by", &traces, kTrace},
    {"--top", &traces, kTrace},
    {"--sets", &traces, kTrace},
    {"--neurons", &traces, kTrace},
    {"--direction", &traces, kTrace},
    {"--engine", &traces, kTrace},
    {"--corrupt", &traces, kTrace},
    {"--samples", &traces, kTrace},
    {"--precision", &traces, kTrace},
    {"--most-samples", &traces, kTrace},
    {"--seed", &traces, kTrace},
    {"--noise", &traces, kTrace},
    {"--noise-facts", &traces, kTrace},
    {"--noise-text", &traces, kTrace},
    {"--replace", &traces, kTrace},
    {"--target", &traces, kTrace},
    {"--answer", &traces, kTrace},
    {"--measures", &traces, kTrace},
    {"--foil", &traces, kTrace},
    {"--all", &traces, kTrace},
    {"--facts-per-sweep", &traces, kTrace},

    {"--positions", &patches, "a kind other than knockout among --kinds"},
    {"--direction", &patches, "a kind other than knockout among --kinds"},
    {"--window",
     [](const Options& options) {
       return has_any(options.kinds, {Kind::kMlp, Kind::kAttn});
     },
     "mlp or attn among --kinds"},
    {"--layers", &has_neurons, kNeuron},
    {"--rank-by", &has_neurons, kNeuron},
    {"--top", &has_neurons, kNeuron},
    {"--sets", &has_neurons, kNeuron},
    {"--neurons", &has_neurons, kNeuron},
    {"--layers", &ranks_neurons, kRanked},
    {"--rank-by", &ranks_neurons, kRanked},
    {"--top", &ranks_neurons, kRanked},
    {"--sets", &ranks_neurons, kRanked},
    {"--head-window", [](const Options& options) { return has_any(options.kinds, {Kind::kHead}); },
     "head among --kinds"},
    {"--knockout-window", [](const Options& options) { return has_any(options.kinds, {Kind::kKnockout}); },
     "knockout among --kinds"},

    {"--samples", &is_noise, kNoise},
    {"--precision", &is_noise, kNoise},
    {"--noise", &is_noise, kNoise},
    {"--replace", &is_noise, kNoise},
    {"--noise-facts", &is_noise, kNoise},
    {"--noise-facts", [](const Options& options) { return options.noise.of_subjects || options.self_check; },
     "--noise s or s<k>, which takes a standard deviation from subjects"},
    {"--noise-text", &is_of_text, "--noise m, --noise t<df> or --corrupt mean"},
    {"--most-samples", [](const Options& options) { return options.precision.has_value(); }, "--precision beside it"},
    {"--seed",
     [](const Options& options) {
       const bool swaps = options.facts && options.method == CorruptionMethod::kTokens;
       return is_noise(options) || swaps || ranks_neurons(options);  // sets of these are held against random ones
     },
     "noise or --corrupt swap; nothing else here is drawn"},

    {"--foil",
     [](const Options& options) {
       return has_any(options.measures, {Measure::kLogitDifference, Measure::kNormalised});
     },
     "--measures logit_difference or normalised"},
    {"--all", [](const Options& options) { return options.facts->follow != Follow::kObject; },
     "the model's own answer, not --target object, which traces every fact with an object"},
    {"--facts-per-sweep", [](const Options& options) { return options.engine == Engine::kSweep; }, "--engine sweep"},
    {"--tf32", [](const Options& options) { return options.device != "cpu"; }, "a GPU; give --device cuda beside it"},
    {"--tf32", [](const Options& options) { return options.dtype != "float64"; },
     "products in float32, not --dtype float64"},
};

/// Those of calibrate, whose noise is always drawn, in a size of the subjects' embeddings.
constexpr Use kCalibrateUses[] = {
    {"--window",
     [](const Options& options) {
       return has_any(options.kinds, {Kind::kMlp, Kind::kAttn});
     },
     "mlp or attn among --kinds"},
    {"--tf32", [](const Options& options) { return options.device != "cpu"; }, "a GPU; give --device cuda beside it"},
    {"--tf32", [](const Options& options) { return options.dtype != "float64"; },
     "products in float32, not --dtype float64"},
};

[[noreturn]] void refuse(const char* name, const std::string& expected) {
  throw CLI::ValidationError(name, "has no effect here; expected " + expected);
}

template <typename Uses>
std::set<std::string> refuse_idle(const CLI::App& app, const Options& options, const Uses& uses,
                                  const std::set<std::string>& may_be_idle = {}) {
  std::set<std::string> idle;
  for (const auto& use : uses) {
    if (app.get_option(use.name)->count() == 0 || use.works(options)) continue;
    if (!may_be_idle.contains(use.name)) refuse(use.name, use.expected);
    idle.insert(use.name);
  }
  return idle;
}

}  // namespace

std::set<std::string> refuse_idle_options(const CLI::App& app, const Options& options,
                                          const std::set<std::string>& recorded) {
  return refuse_idle(app, options, kUses, recorded);
}

void refuse_idle_calibrate_options(const CLI::App& command, const Options& options) {
  refuse_idle(command, options, kCalibrateUses);
}

void refuse_idle_summary_options(const CLI::App& command, const SummaryOptions& options) {
  if (command.get_option("--seed")->count() > 0 && options.bootstrap == 0)
    refuse("--seed", "a bootstrap, not --bootstrap 0");
}

}  // namespace rometrace::cli

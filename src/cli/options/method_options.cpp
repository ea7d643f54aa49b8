#include "cli/options/method_options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <utility>

#include "cli/options/help_format.hpp"
#include "cli/options/option_values.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/trace/patch.hpp"

namespace rometrace::cli {
namespace {

bool has(const Options& options, Kind kind) {
  return std::find(options.kinds.begin(), options.kinds.end(), kind) != options.kinds.end();
}

bool has(const Options& options, Measure measure) {
  return std::find(options.measures.begin(), options.measures.end(), measure) != options.measures.end();
}

/// "3-7", the last layer with them, or "3".
LayerRange read_layer_range(const std::string& text) {
  const auto number = [&](const std::string& digits) {
    std::int64_t layer = -1;
    const auto* end = digits.data() + digits.size();
    const auto [stop, error] = std::from_chars(digits.data(), end, layer);
    if (error != std::errc() || stop != end || layer < 0 || layer > kMaxCount) {
      throw CLI::ValidationError("--layers", in_quotes(text) + "; expected the first and the last layer, counted " +
                                                 "from 0, as in 3-7, or one as in 5");
    }
    return layer;
  };
  const auto dash = text.find('-');
  const auto first = number(text.substr(0, dash));
  const auto last = dash == std::string::npos ? first : number(text.substr(dash + 1));
  if (last < first) {
    throw CLI::ValidationError("--layers", in_quotes(text) + " ends before it begins; expected A-B, A <= B");
  }
  return {first, last + 1};
}

}  // namespace

bool MethodOptions::given(const char* name) const {
  return app_->get_option(name)->count() > 0;
}

void MethodOptions::add_to(CLI::App& app, Options& options) {
  app_ = &app;
  const char* group = groups::kMethod;
  const auto value = [&](const char* name, auto& target, const char* type, const char* description) {
    return app.add_option(name, target, description)->type_name(type)->group(group);
  };
  const auto number = [&](const char* name, auto& target, const char* type, const char* description, std::int64_t least,
                          std::int64_t most) {
    return app.add_option_function<std::string>(name, whole_number(name, target, least, most), description)
        ->type_name(type)
        ->group(group);
  };
  value("--kinds", kinds_, "KINDS",
        "What to patch: state, mlp, attn, head (one attention head), knockout (attention cut from the last position), "
        "neuron (one of an MLP, see below)")
      ->delimiter(',')
      ->default_str("state,mlp,attn");
  value("--sever", sever_, "PATHS",
        "Also the state with the position's mlp or attn outputs held as if it were not patched; none: the plain state")
      ->delimiter(',');
  value("--positions", positions_, "WHICH",
        "Positions to patch: all, subject, subject-last, last, or numbers from 0 such as 1,2,5 [all; of neurons "
        "subject-last]");
  number("--window", options.window, "W",
         "Layers patched together, for mlp and attn; a fifth of the model's is a good choice", 1, kMaxCount)
      ->default_str("10");
  number("--head-window", options.head_window, "W", "Layers patched together, for head", 1, kMaxCount)
      ->default_str("1");
  number("--knockout-window", options.knockout_window, "W", "Layers cut together, for knockout", 1, kMaxCount)
      ->default_str("9");
  value("--direction", direction_, "WAY",
        "denoising: clean values into the corrupted run; noising: corrupted values into the clean run; both: the two, "
        "and "
        "their difference")
      ->capture_default_str();
  value("--engine", engine_, "ENGINE",
        "sweep: all cells in one pass up the layers; plain: one run of the model a cell, as in the paper; gradient: a "
        "fast approximation (attribution patching)")
      ->capture_default_str();

  group = groups::kNeurons;
  value("--layers", layers_, "A-B", "Layers whose neurons are ranked, from 0, B with them, or one [all]");
  value("--rank-by", rank_by_, "RULE",
        "What chooses the neurons that are run, and orders the sets: gradient, integrated:M (the mean of M gradients), "
        "none (all neurons are run)")
      ->capture_default_str();
  number("--top", top_, "K", "How many of the best to run and to tell of", 1, kMaxCount)->default_str("20");
  value("--sets", sets_, "WHICH", "layer: how few carry the answer, for the neurons of each layer apart as well");
  value("--neurons", neurons_, "LIST", "Run these instead, as layer:neuron: 3:117,5:9");

  group = groups::kCorruption;
  value("--corrupt", corrupt_, "HOW",
        "The subject's embeddings: noise, zero, mean (of a text's tokens); with --facts: swap (another fact's subject)")
      ->capture_default_str();
  value("--counter-subject", options.counter_subject, "TEXT",
        "Corrupt by this subject in the place of --subject, of as many tokens");
  value("--counter-prompt", options.counter_prompt, "TEXT", "Corrupt by this prompt, of as many tokens");
  number("--samples", options.samples, "N", "Noise draws", 1, kMaxCount)->default_str("10");
  app.add_option_function<std::string>(
         "--precision",
         [&options](const std::string& text) {
           options.precision = read_positive(text);
           if (!options.precision) {
             throw CLI::ValidationError("--precision", in_quotes(text) + "; expected a number above 0, such as 0.005");
           }
         },
         "Draw on, --samples at a time, until each score's standard error is no more than P")
      ->type_name("P")
      ->group(group);
  number("--most-samples", options.most_samples, "N", "Draws at most, with --precision", 2, kMaxCount)
      ->default_str("1000");
  number("--seed", options.seed, "SEED", "Seed of the noise (NumPy's RandomState), and of swap; 0 to 4294967295", 0,
         std::numeric_limits<std::uint32_t>::max())
      ->default_str("1");
  value("--noise", options.noise_text, "RULE",
        "A standard deviation (0.1); s<k>: k times that of the subjects' embeddings; u<x>: uniform in [-x, x]; m, "
        "t<df>: Gaussian or Student's t with mean and covariance of a text's embeddings")
      ->capture_default_str();
  value("--noise-facts", options.noise_facts, "FILE",
        "Facts file whose subjects set s<k> [a batch's own; else the one that rometrace ships]");
  value("--noise-text", options.noise_text_file, "FILE",
        "Text that m, t<df> and --corrupt mean are of [the prompts of the facts that rometrace ships]");
  app.add_flag("--replace", options.replace, "Put noise in place of the embeddings instead of adding it")->group(group);

  group = groups::kAnswers;
  value("--target", options.targets, "TEXT",
        "Follow this answer (mind the leading space) instead of the top one; more of them, of one token each, are "
        "followed beside it; with --facts: object")
      ->take_all()
      ->expected(1);
  value("--answer", answer_, "RULE",
        "How much of the model's answer to follow: token, word, greedy:K (K tokens); with --facts: object (as many as "
        "the object has)")
      ->capture_default_str();
  value("--measures", measures_, "LIST",
        "Beside the probability: log_probability, logit, logit_difference, normalised, rank, kl")
      ->delimiter(',');
  value("--foil", options.foil, "TEXT", "The token whose logit is taken off for logit_difference and normalised");
}

void MethodOptions::complete(Options& options) const {
  options.engine = chosen("--engine", engine_, {Engine::kSweep, Engine::kPlain, Engine::kGradient});
  options.direction = chosen("--direction", direction_, {Direction::kDenoising, Direction::kNoising, Direction::kBoth});
  options.positions = named("--positions", [&] { return PositionRule::parse(positions_); });
  complete_kinds(options);
  complete_neurons(options);
  complete_corruption(options);
  complete_readings(options);
  if (options.engine == Engine::kGradient) refuse_for_gradient(options);
  if (options.direction == Direction::kBoth) refuse_for_both(options);
}

void MethodOptions::complete_kinds(Options& options) const {
  options.kinds.clear();
  options.neurons.reset();
  for (const auto& name : kinds_) {
    constexpr std::array kGrids = {Kind::kState, Kind::kMlp, Kind::kAttn, Kind::kHead, Kind::kKnockout};
    const auto kind = std::find_if(kGrids.begin(), kGrids.end(), [&](Kind grid) { return to_string(grid) == name; });
    if (kind != kGrids.end()) {
      add_once(options.kinds, *kind);
    } else if (name == "neuron") {
      options.neurons.emplace();
    } else {
      throw CLI::ValidationError("--kinds", in_quotes(name) + "; expected state, mlp, attn, head, neuron or knockout");
    }
  }
  for (const auto& path : sever_) {
    if (path != "mlp" && path != "attn" && path != "none") {
      throw CLI::ValidationError("--sever", in_quotes(path) + "; expected mlp, attn or none");
    }
    add_once(options.kinds, path == "mlp"    ? Kind::kStateMlpSevered
                            : path == "attn" ? Kind::kStateAttnSevered
                                             : Kind::kState);
  }
  options.window_given = given("--window");
  options.knockout_window_given = given("--knockout-window");
}

// Where no neurons are traced the values are read all the same: a wrong one is refused before an idle one.
void MethodOptions::complete_neurons(Options& options) const {
  NeuronOptions neurons;
  if (given("--layers")) neurons.layers = read_layer_range(layers_);
  neurons.top = top_;
  neurons.ranking = named("--rank-by", [&] { return NeuronRule::parse(rank_by_); });
  if (given("--neurons")) neurons.given = named("--neurons", [&] { return NeuronName::parse_list(neurons_); });
  if (given("--sets") && sets_ != "layer") {
    throw CLI::ValidationError("--sets", in_quotes(sets_) + "; expected layer");
  }
  neurons.sets_by_layer = given("--sets");
  if (!options.neurons) return;
  if (given("--positions")) {
    neurons.positions = options.positions;
  } else if (options.kinds.empty()) {
    options.positions = neurons.positions;
  }
  options.neurons = std::move(neurons);
}

void MethodOptions::complete_corruption(Options& options) const {
  const bool batch = options.facts.has_value();
  options.noise = named("--noise", [&] { return NoiseRule::parse(options.noise_text); });
  if (corrupt_ == "swap") {
    if (!batch) {
      throw CLI::ValidationError("--corrupt",
                                 "swap takes subjects from other facts; expected --facts beside it, or "
                                 "--counter-subject for one prompt");
    }
    options.method = CorruptionMethod::kTokens;
  } else if (corrupt_ == "noise" || corrupt_ == "zero" || corrupt_ == "mean") {
    options.method =
        chosen("--corrupt", corrupt_, {CorruptionMethod::kNoise, CorruptionMethod::kZero, CorruptionMethod::kMean});
  } else {
    throw CLI::ValidationError("--corrupt", in_quotes(corrupt_) + "; expected noise, zero, mean or swap");
  }
  if (options.counter_subject || options.counter_prompt) {
    const char* name = options.counter_subject ? "--counter-subject" : "--counter-prompt";
    if (batch) throw CLI::ValidationError(name, "is for one prompt; with --facts, --corrupt swap takes other subjects");
    if (options.counter_subject && options.counter_prompt) {
      throw CLI::ValidationError(name, "does not go with --counter-prompt; leave one of them out");
    }
    if (given("--corrupt")) throw CLI::ValidationError(name, "does not go with --corrupt; leave one of them out");
    options.method = CorruptionMethod::kTokens;
  }
  if (options.method != CorruptionMethod::kNoise && !given("--samples")) options.samples = 1;
  if (options.precision && options.method == CorruptionMethod::kNoise && options.samples == 1) {
    throw CLI::ValidationError("--precision", "a single draw tells nothing of its error; expected --samples 2 or more");
  }
}

void MethodOptions::complete_readings(Options& options) const {
  const bool batch = options.facts.has_value();
  options.answer = named("--answer", [&] { return AnswerRule::parse(answer_); });
  if (given("--answer") && !options.targets.empty()) {
    throw CLI::ValidationError("--answer", "is of the model's own answer; leave it or --target out");
  }
  if (options.answer.which == AnswerRule::Which::kObject && !batch) {
    throw CLI::ValidationError("--answer", "object is for --facts; expected token, word or greedy:K");
  }
  for (const auto& name : measures_) {
    add_once(options.measures, chosen("--measures", name,
                                      {Measure::kProbability, Measure::kLogProbability, Measure::kLogit,
                                       Measure::kLogitDifference, Measure::kNormalised, Measure::kRank, Measure::kKl}));
  }
  std::erase(options.measures, Measure::kProbability);  // is always there
  const bool swaps = batch && options.method == CorruptionMethod::kTokens;
  if (has(options, Measure::kLogitDifference) && !options.foil && !swaps) {
    throw CLI::ValidationError("--measures", "logit_difference needs the other token; expected --foil beside it");
  }
}

void MethodOptions::refuse_for_both(const Options& options) {
  if (options.precision) {
    throw CLI::ValidationError("--precision", "is of one direction; with --direction both expected --samples alone");
  }
  if (options.neurons) {
    throw CLI::ValidationError("--kinds", "neuron is of one direction; expected --direction denoising or noising");
  }
}

void MethodOptions::refuse_for_gradient(const Options& options) const {
  const auto refuse = [](const char* name) {
    throw CLI::ValidationError(name, "is not for --engine gradient; leave it out, or take sweep");
  };
  if (!severed_sites(options.kinds).empty()) refuse("--sever");
  if (!options.measures.empty()) refuse("--measures");
  if (options.precision) refuse("--precision");
  if (options.neurons) {
    throw CLI::ValidationError("--kinds",
                               "neuron is not for --engine gradient: gradients rank neurons (--rank-by), they do not "
                               "run them; expected --engine sweep or plain");
  }
  if (has(options, Kind::kKnockout)) {
    throw CLI::ValidationError("--kinds", "knockout is not for --engine gradient; expected state, mlp, attn or head");
  }
  if (options.targets.size() > 1) {
    throw CLI::ValidationError("--target", "--engine gradient follows one answer; give --target once");
  }
}

}  // namespace rometrace::cli

#include "cli/options/calibrate_options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "cli/options/help_format.hpp"
#include "cli/options/option_values.hpp"
#include "cli/options/shared_options.hpp"
#include "rometrace/study/calibration.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace::cli {
namespace {

double read_factor(const std::string& text) {
  const auto factor = read_positive(text);
  if (!factor) throw CLI::ValidationError("--factors", in_quotes(text) + "; expected numbers above 0, as in 1,2.5,4");
  return *factor;
}

std::vector<double> read_factors(const std::vector<std::string>& texts) {
  std::vector<double> factors;
  for (const auto& text : texts) factors.push_back(read_factor(text));
  std::sort(factors.begin(), factors.end());
  const auto again = std::adjacent_find(factors.begin(), factors.end());
  if (again != factors.end()) {
    throw CLI::ValidationError("--factors", factor_text(*again) + " is there twice; give each factor once");
  }
  return factors;
}

// Those that have one peak layer.
std::vector<Kind> read_kinds(const std::vector<std::string>& names) {
  std::vector<Kind> kinds;
  for (const auto& name : names) add_once(kinds, chosen("--kinds", name, {Kind::kState, Kind::kMlp, Kind::kAttn}));
  return kinds;
}

}  // namespace

CLI::App* add_calibrate(CLI::App& app, CalibrateOptions& options) {
  auto& trace = options.trace;
  auto& facts = trace.facts.emplace();
  constexpr std::int64_t kDefaultSample = 50;
  facts.selection.sample = kDefaultSample;
  trace.kinds = {Kind::kState};
  trace.positions.which = PositionRule::Which::kSubjectLast;  // all that is reported
  trace.noise_text = "s";
  trace.noise = NoiseRule::parse(trace.noise_text);

  auto* command = app.add_subcommand(
      "calibrate", "Which noise suits a model: traces facts with several noise factors and recommends one");
  command->add_option("--facts", facts.files, "Facts files (layouts: docs/formats.md); - is stdin")
      ->required()
      ->type_name("FILE")
      ->group(groups::kFacts);
  add_model_options(*command, trace);
  command
      ->add_option_function<std::vector<std::string>>(
          "--factors", [&](const std::vector<std::string>& texts) { options.factors = read_factors(texts); },
          "Standard deviations of the noise to try, in those of the subjects' embeddings (the k of --noise s<k>)")
      ->delimiter(',')
      ->type_name("K,K,...")
      ->default_str("1,1.5,2,2.5,3,4,5")
      ->group(groups::kFactors);
  auto [sample, sample_seed] = add_sample_options(*command, facts.selection);
  sample->default_str(std::to_string(kDefaultSample));
  command
      ->add_option_function<std::vector<std::string>>(
          "--kinds", [&](const std::vector<std::string>& names) { trace.kinds = read_kinds(names); },
          "Whose peaks to look at: state, mlp, attn")
      ->delimiter(',')
      ->type_name("KINDS")
      ->default_str("state")
      ->group(groups::kMethod);
  const auto number = [&](const std::string& name, auto& target, const std::string& description, std::int64_t least,
                          std::int64_t most, const char* type, const char* group) {
    return command->add_option_function<std::string>(name, whole_number(name, target, least, most), description)
        ->type_name(type)
        ->default_str(std::to_string(target))
        ->group(group);
  };
  number("--window", trace.window, "Layers restored together, for mlp and attn", 1, kMaxCount, "W", groups::kMethod)
      ->each([&trace](const std::string&) { trace.window_given = true; });
  number("--samples", trace.samples, "Noise draws", 1, kMaxCount, "N", groups::kFactors);
  number("--seed", trace.seed, "Seed of the noise (NumPy's RandomState)", 0, std::numeric_limits<std::uint32_t>::max(),
         "SEED", groups::kFactors);
  command
      ->add_option("--noise-facts", trace.noise_facts,
                   "Facts file whose subjects set the standard deviation [those of --facts]")
      ->type_name("FILE")
      ->group(groups::kFactors);
  auto* all = command->add_flag_function(
      "--all", [&](std::int64_t) { facts.on_other_answer = OnOtherAnswer::kTrace; },
      "Trace facts whose object is not the model's answer too, following the answer");
  all->group(groups::kFacts);
  command
      ->add_option_function<std::string>(
          "--target",
          [&](const std::string& target) {
            if (target != "object") throw CLI::ValidationError("--target", in_quotes(target) + "; expected object");
            facts.follow = Follow::kObject;
          },
          "object: follow each fact's object, whatever the model's answer")
      ->type_name("WHAT")
      ->group(groups::kAnswers)
      ->excludes(all);
  add_output_options(*command, trace.output, trace.json);
  auto* verbose = command->add_flag("-v,--verbose", trace.verbose, "Say more on stderr")->group(groups::kOutput);
  command->add_flag("-q,--quiet", trace.quiet, "Say nothing on stderr but errors")
      ->group(groups::kOutput)
      ->excludes(verbose);
  add_run_options(*command, trace);
  add_help(*command, "Recommended is " + std::string(recommendation_rule()) + ".");
  return command;
}

void check_calibrate(const CLI::App& app, const CalibrateOptions& options) {
  for (const auto* option : app.get_options()) {
    if (option->count() > 0) {
      throw CLI::ValidationError(option->get_name(), "stands before calibrate; options of calibrate come behind it");
    }
  }
  check_facts_files(options.trace.facts->files);
  check_run_options(options.trace);
}

}  // namespace rometrace::cli

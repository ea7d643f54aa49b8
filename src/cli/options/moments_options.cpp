#include "cli/options/moments_options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "cli/options/help_format.hpp"
#include "cli/options/option_values.hpp"
#include "cli/options/shared_options.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace::cli {
namespace {

constexpr std::int64_t kHighestLayer = 9999;

std::int64_t read_layer(const std::string& option, const std::string& text, const std::string& whole) {
  std::int64_t layer = 0;
  const auto* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, layer);
  if (error != std::errc() || stop != end || layer < 0 || layer > kHighestLayer) {
    throw CLI::ValidationError(option, in_quotes(whole) + "; expected layers as in 17, 13-17 or 5,13-17");
  }
  return layer;
}

}  // namespace

std::vector<std::int64_t> read_layers(const std::string& option, const std::vector<std::string>& texts) {
  std::vector<std::int64_t> layers;
  for (const auto& text : texts) {
    const auto dash = text.find('-');
    const auto first = read_layer(option, text.substr(0, dash), text);
    const auto last = dash == std::string::npos ? first : read_layer(option, text.substr(dash + 1), text);
    if (last < first)
      throw CLI::ValidationError(option, in_quotes(text) + " ends before it begins; expected A-B, A <= B");
    for (auto layer = first; layer <= last; ++layer) layers.push_back(layer);
  }
  std::sort(layers.begin(), layers.end());
  layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
  return layers;
}

CLI::App* add_moments(CLI::App& app, MomentsOptions& options) {
  auto& trace = options.trace;
  auto* command = app.add_subcommand(
      "moments", "Collects the second moment of the keys of MLPs over a text, which edits of these layers need");
  command->add_option("--text", options.texts, "Text files, a text a line, packed by gzip or not; - is stdin")
      ->required()
      ->type_name("FILE")
      ->group(groups::kMoments);
  command
      ->add_option_function<std::vector<std::string>>(
          "--layers", [&](const std::vector<std::string>& texts) { options.layers = read_layers("--layers", texts); },
          "Layers, from 0: 17, 13-17, 5,13-17; all in one pass")
      ->required()
      ->delimiter(',')
      ->type_name("LAYERS")
      ->group(groups::kMoments);
  command
      ->add_option_function<std::string>(
          "--tokens",
          [&](const std::string& text) {
            std::int64_t tokens = 0;
            whole_number("--tokens", tokens, 1, std::numeric_limits<std::int32_t>::max())(text);
            options.tokens = tokens;
          },
          "Tokens of the text at most, whole lines [200000, or 50 times the width of the MLP if that is more]")
      ->type_name("N")
      ->group(groups::kMoments);
  add_model_options(*command, trace);
  command
      ->add_option("-o,--output", trace.output,
                   "Write the moments to this file, as safetensors; they are kept in the user's cache anyway")
      ->type_name("FILE")
      ->group(groups::kOutput);
  command->add_flag("--json", trace.json, "Write JSON to stdout, even if it is a terminal")->group(groups::kOutput);
  auto* verbose = command->add_flag("-v,--verbose", trace.verbose, "Say more on stderr")->group(groups::kOutput);
  command->add_flag("-q,--quiet", trace.quiet, "Say nothing on stderr but errors")
      ->group(groups::kOutput)
      ->excludes(verbose);
  add_run_options(*command, trace);
  add_help(*command,
           "Interrupted, it keeps what is done, and the same command goes on from there.\n"
           "Exit status: 0 done; 2 could not run; 130 interrupted.");
  return command;
}

void check_moments(const CLI::App& app, const MomentsOptions& options) {
  for (const auto* option : app.get_options()) {
    if (option->count() > 0) {
      throw CLI::ValidationError(option->get_name(), "stands before moments; options of moments come behind it");
    }
  }
  for (const auto& file : options.texts) {
    if (file.empty()) throw CLI::ValidationError("--text", "an empty file name; expected a text file, or - for stdin");
  }
  if (options.trace.output && (options.trace.output->empty() || *options.trace.output == "-")) {
    throw CLI::ValidationError(
        "--output", in_quotes(*options.trace.output) + "; expected the name of a file: moments are no text for stdout");
  }
  if (!options.trace.edits.empty()) {
    throw CLI::ValidationError("--edit",
                               "an edit is made with the moments of the model as its files have it; leave it out");
  }
  check_run_options(options.trace);
}

}  // namespace rometrace::cli

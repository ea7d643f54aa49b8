#include "cli/options/repeat_options.hpp"

#include <CLI/CLI.hpp>
#include <string>

#include "cli/options/help_format.hpp"
#include "cli/options/option_values.hpp"
#include "cli/options/shared_options.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace::cli {

CLI::App* add_repeat(CLI::App& app, RepeatOptions& options) {
  auto& run = options.run;
  auto* command = app.add_subcommand(
      "repeat", "Runs what a results file of traces holds again, with its own settings, and says how equal it is");
  command->add_option("file", options.file, "A trace, or the results of a batch; - is stdin")
      ->required()
      ->type_name("FILE")
      ->group(groups::kRead);
  command->add_option("--ids", options.ids, "Only the facts with these ids")
      ->delimiter(',')
      ->type_name("IDS")
      ->group(groups::kRead);
  command
      ->add_option("--facts", options.facts,
                   "The facts files that a batch was of: their fingerprints are compared with those in its header")
      ->type_name("FILE")
      ->group(groups::kRead);
  command
      ->add_option_function<std::string>(
          "--tolerance",
          [&options](const std::string& text) {
            options.tolerance = read_positive(text);
            if (!options.tolerance) {
              throw CLI::ValidationError("--tolerance", in_quotes(text) + "; expected a number above 0, such as 1e-6");
            }
          },
          "How far apart numbers are equal: R of them, and R/100 [by dtype: 1e-9 float64, 1e-4 float32, 0.02 float16, "
          "0.1 bfloat16]")
      ->type_name("R")
      ->group(groups::kRead);
  command
      ->add_option("--noise-text", run.noise_text_file,
                   "The text that m, t<df> or a mean are of, where it was not the default")
      ->type_name("FILE")
      ->group(groups::kRead);
  add_model_options(*command, run);
  add_output_options(*command, run.output, run.json);
  auto* verbose = command->add_flag("-v,--verbose", run.verbose, "Say more on stderr")->group(groups::kOutput);
  command->add_flag("-q,--quiet", run.quiet, "Say nothing on stderr but errors")
      ->group(groups::kOutput)
      ->excludes(verbose);
  add_machine_options(*command, run);
  add_help(*command,
           "Without --model it is the model that the file names. Exit status: 0 all are equal, 1 one is not or could "
           "not be repeated, 2 could not run, 130 interrupted.");
  return command;
}

}  // namespace rometrace::cli

#include "cli/options/export_options.hpp"

#include <CLI/CLI.hpp>
#include <string>

#include "cli/options/help_format.hpp"
#include "cli/options/option_values.hpp"

namespace rometrace::cli {

CLI::App* add_export(CLI::App& app, ExportOptions& options) {
  auto* command = app.add_subcommand("export", "Writes traces as a table that pandas and R read");
  command->add_option("files", options.files, "Results files, of a trace or a batch; - is stdin")
      ->required()
      ->type_name("FILE")
      ->group(groups::kRead);
  command
      ->add_option_function<std::string>(
          "--format",
          [&](const std::string& format) {
            if (format != "csv") throw CLI::ValidationError("--format", in_quotes(format) + "; expected csv");
          },
          "csv: a long table, a line for each number that was read")
      ->type_name("FORMAT")
      ->default_str("csv")
      ->group(groups::kExport);
  command
      ->add_option_function<std::string>(
          "--what",
          [&](const std::string& what) {
            options.what = chosen("--what", what, {TableOf::kCells, TableOf::kNeurons, TableOf::kSets});
          },
          "What a line is: of cells of the grids, of neurons that were run alone, or of sets of them")
      ->type_name("WHAT")
      ->default_str("cells")
      ->group(groups::kExport);
  command->add_option("-o,--output", options.output, "Write to this file instead of stdout")
      ->type_name("FILE")
      ->group(groups::kOutput);
  command->add_flag("-q,--quiet", options.quiet, "Say nothing on stderr but errors")->group(groups::kOutput);
  add_help(*command, "Exit status: 0 done; 2 could not run; 130 interrupted.");
  return command;
}

}  // namespace rometrace::cli

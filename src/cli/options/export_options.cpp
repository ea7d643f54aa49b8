#include "cli/options/export_options.hpp"

#include <CLI/CLI.hpp>
#include <string>

#include "cli/options/help_format.hpp"
#include "cli/options/option_values.hpp"

namespace rometrace::cli {

CLI::App* add_export(CLI::App& app, ExportOptions& options) {
  auto* command =
      app.add_subcommand("export", "Writes traces as a table that pandas and R read, or as the reference's own files");
  command->add_option("files", options.files, "Results files, of a trace or a batch; - is stdin")
      ->required()
      ->type_name("FILE")
      ->group(groups::kRead);
  command
      ->add_option_function<std::string>(
          "--format",
          [&](const std::string& format) {
            if (format != "csv" && format != "npz") {
              throw CLI::ValidationError("--format", in_quotes(format) + "; expected csv or npz");
            }
            options.format = format == "csv" ? ExportOptions::Format::kCsv : ExportOptions::Format::kNpz;
          },
          "csv: a long table, a line for each number that was read; npz: the files of the reference's own program")
      ->type_name("FORMAT")
      ->default_str("csv")
      ->group(groups::kExport);
  command
      ->add_option_function<std::string>(
          "--what",
          [&](const std::string& what) {
            options.what = chosen("--what", what, {TableOf::kCells, TableOf::kNeurons, TableOf::kSets});
          },
          "csv: what a line is: of cells of the grids, of neurons that were run alone, or of sets of them")
      ->type_name("WHAT")
      ->default_str("cells")
      ->group(groups::kExport);
  command->add_flag("--force", options.force, "npz: let files of the same names in the folder be replaced")
      ->group(groups::kExport);
  command
      ->add_option("-o,--output", options.output,
                   "csv: write to this file instead of stdout; npz: to this folder, in cases/")
      ->type_name("FILE")
      ->group(groups::kOutput);
  command->add_flag("-q,--quiet", options.quiet, "Say nothing on stderr but errors")->group(groups::kOutput);
  add_help(*command, "Exit status: 0 done; 2 could not run; 130 interrupted.");
  return command;
}

void check_export(const CLI::App& command, const ExportOptions& options) {
  const auto refuse_beside = [&](const char* name, const char* expected) {
    if (command.get_option(name)->count() > 0) {
      throw CLI::ValidationError(name, std::string("has no effect here; expected --format ") + expected + " beside it");
    }
  };
  if (options.format == ExportOptions::Format::kCsv) return refuse_beside("--force", "npz");
  refuse_beside("--what", "csv");
  if (!options.output || options.output->empty() || *options.output == "-") {
    throw CLI::ValidationError("--output", "is missing; expected a folder for the files of --format npz");
  }
}

}  // namespace rometrace::cli

#include "cli/options/show_options.hpp"

#include <CLI/CLI.hpp>

#include "cli/options/help_format.hpp"

namespace rometrace::cli {

CLI::App* add_show(CLI::App& app, ShowOptions& options) {
  auto* command = app.add_subcommand(
      "show", "Draws again what a terminal showed of traces or of a summary; of many facts, a table of them");
  command->add_option("file", options.file, "Results of a trace or a batch, or a summary of traces; - is stdin")
      ->required()
      ->type_name("FILE")
      ->group(groups::kRead);
  command->add_option("--id", options.ids, "The maps of the fact with this id; may be given several times")
      ->type_name("ID")
      ->allow_extra_args(false)
      ->group(groups::kRead);
  add_help(*command,
           "Where stdout is no terminal it is the same text without colour, 80 columns wide.\n"
           "Exit status: 0 done; 2 could not run; 130 interrupted.");
  return command;
}

}  // namespace rometrace::cli

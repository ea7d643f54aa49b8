#include "cli/commands/edit_files_command.hpp"

#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/exit_status.hpp"
#include "cli/files/output_file.hpp"
#include "cli/options/option_values.hpp"
#include "cli/session.hpp"
#include "rometrace/edit/edit_file.hpp"
#include "rometrace/edit/written_model.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_line.hpp"

namespace rometrace::cli {
namespace {

/// "written: model.safetensors; "; empty for none.
std::string part(const std::string& what, const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 8;
  std::string text;
  for (std::size_t i = 0; i < std::min(kShown, names.size()); ++i) text += (i > 0 ? ", " : "") + one_line(names[i]);
  if (names.size() > kShown) text += " and " + std::to_string(names.size() - kShown) + " more";
  return text.empty() ? "" : what + ": " + text + "; ";
}

}  // namespace

int show_edit_file(const std::string& file, const std::stop_token& stop) {
  if (file.empty()) throw Error("--show is empty; expected a file");
  const auto edit = named("--show", [&] { return read_edit_file(file); });
  write_stdout(escape_line_ends(edit.record.dump(2)) + "\n", stop);
  return kDone;
}

int write_edited_model(const Options& options, const std::string& folder, const std::stop_token& stop) {
  if (folder.empty()) throw Error("--write is empty; expected a new folder");
  const auto edits = read_edits(options);
  const auto located = locate_model(options, stop);
  const auto result = rometrace::write_edited_model(located.folder, edits, folder, stop);
  auto text = part("written", result.written) + part("linked", result.linked) + part("copied", result.copied);
  text.resize(text.size() - 2);
  spdlog::info("{}", text);
  if (!result.left_out.empty()) {
    auto left_out = part("weights that were not read, so not edited either, and are left out", result.left_out);
    left_out.resize(left_out.size() - 2);
    spdlog::info("{}", left_out);
  }
  write_stdout(one_line(folder, folder.size() + 1) + "\n", stop);
  return kDone;
}

}  // namespace rometrace::cli

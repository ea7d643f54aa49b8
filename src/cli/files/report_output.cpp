#include "cli/files/report_output.hpp"

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "cli/machine/terminal_info.hpp"
#include "rometrace/text/json_line.hpp"

namespace rometrace::cli {

ReportOutput::ReportOutput(const std::optional<std::string>& output, bool json) {
  if (output && *output != "-") file_.emplace(*output);
  json_to_stdout_ = json || (!file_ && (!is_terminal(STDOUT_FILENO) || output == "-"));
}

bool ReportOutput::shows_text() const {
  return !json_to_stdout_ && is_terminal(STDOUT_FILENO);
}

void ReportOutput::write(const nlohmann::ordered_json& json,
                         const std::function<std::string(const TerminalStyle&)>& render, const std::stop_token& stop) {
  if (file_ || json_to_stdout_) {
    const auto line = to_line(json) + "\n";
    if (file_) {  // first: a stdout that fails then loses nothing
      file_->write(line, stop);
      file_->commit();
    }
    if (json_to_stdout_) write_stdout(line, stop);
  }
  if (shows_text()) write_stdout(render(terminal_style(STDOUT_FILENO)), stop);
}

}  // namespace rometrace::cli

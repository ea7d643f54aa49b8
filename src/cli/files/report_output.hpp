#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <stop_token>
#include <string>

#include "cli/files/output_file.hpp"
#include "rometrace/report/terminal.hpp"

namespace rometrace::cli {

/// Where a command's one record goes: JSON to -o's file, and to stdout if that is asked for or is no terminal and no
/// file was named; else, on a terminal, a text for people.
class ReportOutput {
 public:
  /// `output`: -o's value. Opens the file. Throws Error.
  ReportOutput(const std::optional<std::string>& output, bool json);

  /// To be called once. Throws Error, Interrupted.
  void write(const nlohmann::ordered_json& json, const std::function<std::string(const TerminalStyle&)>& render,
             const std::stop_token& stop);

  bool shows_text() const;

 private:
  std::optional<OutputFile> file_;
  bool json_to_stdout_;
};

}  // namespace rometrace::cli

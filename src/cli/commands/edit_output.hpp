#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <stop_token>

#include "cli/commands/edit_session.hpp"
#include "cli/files/output_file.hpp"
#include "cli/files/report_output.hpp"
#include "cli/options/options.hpp"

namespace rometrace::cli {

/// Where one edit goes: its file, and its record to stdout. Constructed before the model is loaded, so that a file that
/// cannot be written is an error at once.
class EditOutput {
 public:
  /// Throws Error.
  explicit EditOutput(const EditOptions& options);

  /// What stdout's record has beyond the file's.
  using Further = std::function<void(const Edit& edit, nlohmann::ordered_json& json)>;

  /// Writes an edit that was made in these layers. To be called once. Throws Error, Interrupted.
  void write(EditSession& session, const MadeEdit& made, std::span<const std::int64_t> layers, const Further& further,
             const std::stop_token& stop);

 private:
  std::optional<OutputFile> file_;
  ReportOutput report_;
};

}  // namespace rometrace::cli

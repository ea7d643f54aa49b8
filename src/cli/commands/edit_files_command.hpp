#pragma once

#include <stop_token>
#include <string>

#include "cli/options/options.hpp"

namespace rometrace::cli {

/// `rometrace edit --show FILE`: writes the record of an edit file to stdout, as JSON. Returns the exit status, 0.
/// Throws Error as read_edit_file() does; Interrupted.
int show_edit_file(const std::string& file, const std::stop_token& stop);

/// `rometrace edit --write FOLDER`: writes the model of the options with their edits as write_edited_model() does, says
/// on stderr what became of its files, and where it is on stdout. Returns the exit status, 0. Throws Error,
/// Interrupted.
int write_edited_model(const Options& options, const std::string& folder, const std::stop_token& stop);

}  // namespace rometrace::cli

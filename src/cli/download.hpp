#pragma once

#include <filesystem>
#include <stop_token>
#include <string>

#include "rometrace/error.hpp"

namespace rometrace::cli {

/// A download was asked to stop, and it has been said what became of it.
class DownloadInterrupted : public Interrupted {};

/// Fetches a model as fetch_model() does, with its progress on stderr: a bar where stderr is a terminal, else a line a
/// file and one every ten seconds; both only where messages are shown. Returns the snapshot's folder. Throws Error;
/// DownloadInterrupted, after saying that what has arrived is kept.
std::filesystem::path download_model(const std::string& model, const std::string& revision,
                                     const std::stop_token& stop);

}  // namespace rometrace::cli

#include "cli/commands/fetch_command.hpp"

#include <spdlog/spdlog.h>

#include "cli/download.hpp"
#include "cli/exit_status.hpp"
#include "cli/files/output_file.hpp"
#include "rometrace/error.hpp"

namespace rometrace::cli {

int run_fetch(const FetchModelsOptions& options, const std::stop_token& stop) {
  try {
    for (const auto& model : options.models) {
      write_stdout(download_model(model, options.revision, stop).native() + "\n", stop);
    }
    return kDone;
  } catch (const Interrupted&) {
    spdlog::error("interrupted");
    return kInterrupted;
  }
}

}  // namespace rometrace::cli

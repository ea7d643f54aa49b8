#include "cli/models_command.hpp"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "cli/exit_status.hpp"
#include "cli/output_file.hpp"
#include "cli/terminal_info.hpp"
#include "rometrace/hub/cached_models.hpp"
#include "rometrace/report/models_json.hpp"
#include "rometrace/report/models_text.hpp"

namespace rometrace::cli {

int run_models(const ModelsOptions& options, const std::stop_token& stop) {
  const auto models = cached_models(stop);
  if (options.json) {
    write_stdout(to_json(models).dump(2) + "\n", stop);
  } else if (models.empty()) {
    spdlog::info("no models in the cache; rometrace fetch NAME gets one");
  } else {
    write_stdout(render_models(models, terminal_style(STDOUT_FILENO)), stop);
  }
  return kDone;
}

}  // namespace rometrace::cli

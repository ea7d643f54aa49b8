#include "cli/commands/models_command.hpp"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "cli/exit_status.hpp"
#include "cli/files/output_file.hpp"
#include "cli/machine/terminal_info.hpp"
#include "rometrace/model/cached_models.hpp"
#include "rometrace/report/models_json.hpp"
#include "rometrace/report/models_text.hpp"
#include "rometrace/text/json_line.hpp"

namespace rometrace::cli {
namespace {

constexpr int kUnbounded = 100'000;

}  // namespace

int run_models(const ModelsOptions& options, const std::stop_token& stop) {
  const auto models = cached_models(stop, [](const std::string& note) { spdlog::warn("{}", note); });
  if (options.json) {
    write_stdout(escape_line_ends(to_json(models).dump(2)) + "\n", stop);
  } else if (models.empty()) {
    spdlog::info("no models in the cache; rometrace fetch NAME gets one");
  } else {
    auto style = terminal_style(STDOUT_FILENO);
    if (!is_terminal(STDOUT_FILENO)) style.columns = kUnbounded;  // a pipe's reader looks for whole names
    write_stdout(render_models(models, style), stop);
  }
  return kDone;
}

}  // namespace rometrace::cli

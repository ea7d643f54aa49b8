#include "cli/commands/families_command.hpp"

#include <unistd.h>

#include "cli/exit_status.hpp"
#include "cli/files/output_file.hpp"
#include "cli/machine/terminal_info.hpp"
#include "rometrace/model/families.hpp"
#include "rometrace/report/families_text.hpp"

namespace rometrace::cli {

int run_families(const FamiliesOptions& /*options*/, const std::stop_token& stop) {
  write_stdout(render_families(known_families(), terminal_style(STDOUT_FILENO).columns), stop);
  return kDone;
}

}  // namespace rometrace::cli

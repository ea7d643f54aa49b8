#include "cli/progress_bar.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "cli/machine/terminal_info.hpp"

namespace rometrace::cli {

bool can_redraw() {
  const char* terminal = std::getenv("TERM");
  return is_terminal(STDERR_FILENO) && terminal != nullptr && *terminal != 0 && std::string_view(terminal) != "dumb";
}

void redraw_line(const std::string& line) {
  std::fprintf(stderr, "\r\033[K%s", line.c_str());
  std::fflush(stderr);
}

ProgressBar::ProgressBar(Wish wish)
    : style_(terminal_style(STDERR_FILENO)), enabled_(wish == Wish::kOnTerminal && can_redraw()) {}

ProgressBar::~ProgressBar() {
  if (shown_ >= 0) redraw_line("");
}

Progress ProgressBar::callback() {
  if (!enabled_) return {};
  return [this](std::int64_t done, std::int64_t total) {
    constexpr double kInterval = 0.1;  // seconds
    const double now = watch_.seconds();
    if (shown_ >= 0 && now - shown_ < kInterval) return;
    shown_ = now;
    redraw_line(render_progress(done, total, now, style_));
  };
}

}  // namespace rometrace::cli

#pragma once

#include <string>

#include "rometrace/report/terminal.hpp"
#include "rometrace/stopwatch.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace::cli {

/// Whether stderr is a terminal on which a line can be drawn again.
bool can_redraw();

/// Puts `line` in the place of the terminal's last line.
void redraw_line(const std::string& line);

/// A bar on stderr that redraws itself on the terminal's last line, and leaves nothing behind however the trace ends.
/// Nothing is shown where stderr is no terminal, or one that cannot redraw a line.
class ProgressBar {
 public:
  enum class Wish { kOnTerminal, kNever };

  explicit ProgressBar(Wish wish);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  /// What the trace calls; refers to the bar. Empty if nothing is shown.
  Progress callback();

 private:
  TerminalStyle style_;
  bool enabled_;
  Stopwatch watch_;
  double shown_ = -1;  ///< seconds, when it was drawn last; negative: never
};

}  // namespace rometrace::cli

#include "rometrace/report/fetch_text.hpp"

#include <algorithm>
#include <cstdint>

#include "report/display_text.hpp"
#include "report/progress_words.hpp"
#include "rometrace/text/bytes_text.hpp"

namespace rometrace {
namespace {

double share_of(const FetchProgress& progress) {
  if (progress.total == 0) return 0;
  return std::min(1.0, static_cast<double>(progress.done) / static_cast<double>(progress.total));
}

}  // namespace

std::string fetch_progress_text(const FetchProgress& progress, double seconds) {
  constexpr int kWidestName = 40;
  auto text = display_head(progress.file, kWidestName, {.unicode = false}).text + ", ";
  text += std::to_string(static_cast<int>(100 * share_of(progress))) + " %: ";
  text += bytes_text(progress.done) + " of " + bytes_text(progress.total);
  if (progress.done <= progress.kept || !(seconds > 0)) return text;
  const double rate = static_cast<double>(progress.done - progress.kept) / seconds;  // bytes a second
  text += ", " + bytes_text(static_cast<std::uint64_t>(rate)) + " a second";
  if (progress.done >= progress.total) return text;
  const double left = static_cast<double>(progress.total - progress.done) / rate;
  return left < kLongestLeft ? text + ", " + clock_time(left) + " left" : text;
}

std::string render_fetch_progress(const FetchProgress& progress, double seconds, const TerminalStyle& style) {
  return behind_bar(share_of(progress), fetch_progress_text(progress, seconds), style.columns, style.unicode);
}

}  // namespace rometrace

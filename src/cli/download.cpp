#include "cli/download.hpp"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <optional>

#include "cli/machine/terminal_info.hpp"
#include "cli/progress_bar.hpp"
#include "rometrace/error.hpp"
#include "rometrace/hub/fetch.hpp"
#include "rometrace/report/fetch_text.hpp"
#include "rometrace/stopwatch.hpp"
#include "rometrace/text/bytes_text.hpp"

namespace rometrace::cli {
namespace {

/// Shows how far one model is, and leaves no bar behind.
class Display {
 public:
  explicit Display(const std::string& model)
      : model_(model),
        style_(terminal_style(STDERR_FILENO)),
        wanted_(spdlog::should_log(spdlog::level::info)),
        bar_(wanted_ && can_redraw()) {}
  ~Display() { clear(); }
  Display(const Display&) = delete;
  Display& operator=(const Display&) = delete;

  void show(const FetchProgress& progress) {
    if (!last_) watch_ = Stopwatch();  // looking things up is not fetching
    const bool is_new_file = !last_ || last_->file != progress.file;
    last_ = progress;
    if (!wanted_) return;
    const double now = watch_.seconds();
    if (bar_) {
      constexpr double kInterval = 0.1;  // seconds
      if (!is_new_file && now - shown_ < kInterval) return;
      redraw_line(render_fetch_progress(progress, now, style_));
    } else {
      constexpr double kInterval = 10;  // seconds
      if (!is_new_file && now - shown_ < kInterval) return;
      spdlog::info("{}: {}", model_, fetch_progress_text(progress, now));
    }
    shown_ = now;
  }

  void say(const std::string& note) {
    clear();
    spdlog::info("{}", note);
  }

  void finish() {
    clear();
    if (last_) {
      const auto fetched = last_->done - last_->kept;
      spdlog::info("{}: {} fetched in {:.1f} s", model_, bytes_text(fetched), watch_.seconds());
    } else {
      spdlog::info("{}: all of it is in the cache", model_);
    }
  }

 private:
  void clear() {
    if (bar_ && shown_ >= 0) redraw_line("");
  }

  std::string model_;
  TerminalStyle style_;
  bool wanted_, bar_;
  Stopwatch watch_;
  double shown_ = -1;  ///< seconds, when something was shown last; negative: never
  std::optional<FetchProgress> last_;
};

}  // namespace

std::filesystem::path download_model(const std::string& model, const std::string& revision,
                                     const std::stop_token& stop) {
  Display display(model);
  FetchOptions options;
  options.revision = revision;
  options.progress = [&](const FetchProgress& progress) { display.show(progress); };
  options.note = [&](const std::string& note) { display.say(note); };
  try {
    auto folder = fetch_model(model, options, stop);
    display.finish();
    return folder;
  } catch (const Interrupted&) {
    display.say(model + ": what has arrived is kept; the same command goes on from there");
    throw DownloadInterrupted();
  }
}

}  // namespace rometrace::cli

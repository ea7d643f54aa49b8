#include "cli/commands/batch_progress.hpp"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "cli/machine/terminal_info.hpp"

namespace rometrace::cli {
namespace {

constexpr double kFirstPlain = 10, kPlainInterval = 60, kRedrawInterval = 0.1;  // seconds
constexpr std::int64_t kFailuresTold = 20;

}  // namespace

BatchProgress::BatchProgress(Wish wish, const BatchCounts& before, std::int64_t total)
    : form_(wish == Wish::kNever ? Form::kNone
            : can_redraw()       ? Form::kRedrawn
                                 : Form::kPlain),
      style_(terminal_style(STDERR_FILENO)),
      before_(before),
      counts_(before),
      total_(total),
      next_plain_(kFirstPlain) {}

BatchProgress::~BatchProgress() {
  clear();
}

void BatchProgress::clear() {
  if (form_ == Form::kRedrawn && shown_ >= 0) redraw_line("");
  shown_ = -1;
}

void BatchProgress::update(const BatchCounts& counts) {
  counts_ = counts;
  part_ = 0;
  show();
}

Progress BatchProgress::callback() {
  if (form_ == Form::kNone) return {};
  return [this](std::int64_t done, std::int64_t total) {
    part_ = total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 0;
    show();
  };
}

void BatchProgress::show() {
  const double now = watch_.seconds();
  if (form_ == Form::kRedrawn && (shown_ < 0 || now - shown_ >= kRedrawInterval)) {
    redraw_line(render_batch_progress(before_, counts_, total_, part_, now, style_));
    shown_ = now;
  }
  if (form_ == Form::kPlain && now >= next_plain_) {
    spdlog::info(batch_progress_text(before_, counts_, total_, part_, now));
    next_plain_ = now + kPlainInterval;
  }
}

void count(BatchCounts& counts, Status status) {
  (status == Status::kTraced ? counts.traced : status == Status::kSkipped ? counts.skipped : counts.failed) += 1;
}

void FailureNotes::add(BatchProgress& progress, const std::string& reason) {
  if (++failures_ > kFailuresTold + 1) return;
  progress.clear();
  if (failures_ > kFailuresTold) {
    spdlog::warn("further failures are {}", others_);
  } else {
    spdlog::warn("failed: {}", reason);
  }
}

std::int64_t FailureNotes::untold() const {
  return std::max<std::int64_t>(0, failures_ - kFailuresTold);
}

}  // namespace rometrace::cli

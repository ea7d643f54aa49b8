#pragma once

#include <cstdint>

#include "cli/progress_bar.hpp"
#include "rometrace/report/terminal.hpp"
#include "rometrace/stopwatch.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace::cli {

/// How far a batch is: a line that redraws itself on a terminal, else a plain line now and then (first after ten
/// seconds, then once a minute). Both on stderr.
class BatchProgress {
 public:
  enum class Wish { kShown, kNever };

  /// `before`: facts that an earlier run has done; `total`: all facts, with those.
  BatchProgress(Wish wish, const BatchCounts& before, std::int64_t total);
  ~BatchProgress();
  BatchProgress(const BatchProgress&) = delete;
  BatchProgress& operator=(const BatchProgress&) = delete;

  /// Counts of all facts done, those before included.
  void update(const BatchCounts& counts);
  /// What a sweep calls; done / total is how many facts' worth of it are done. Refers to this object.
  Progress callback();
  /// Takes the line off the terminal, so that a message can stand there.
  void clear();

  const BatchCounts& counts() const { return counts_; }
  double seconds() const { return watch_.seconds(); }

 private:
  enum class Form { kNone, kRedrawn, kPlain };
  void show();

  Form form_;
  TerminalStyle style_;
  BatchCounts before_, counts_;
  std::int64_t total_;
  double part_ = 0;  ///< facts' worth of the sweep at hand that is done
  Stopwatch watch_;
  double shown_ = -1;  ///< seconds, when it was shown last; negative: not on the terminal now
  double next_plain_;
};

}  // namespace rometrace::cli

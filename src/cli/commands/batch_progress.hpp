#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "cli/progress_bar.hpp"
#include "rometrace/report/terminal.hpp"
#include "rometrace/stopwatch.hpp"
#include "rometrace/study/verdict.hpp"
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

/// Counts a fact by what became of it.
void count(BatchCounts& counts, Status status);

/// Warnings of the first facts of a batch that failed, on stderr. Of the others one warning says where they are found.
class FailureNotes {
 public:
  /// `others`: where further failures are, as in "further failures are in the results only".
  explicit FailureNotes(std::string_view others) : others_(others) {}

  void add(BatchProgress& progress, const std::string& reason);
  /// Failures of which no warning told why.
  std::int64_t untold() const;

 private:
  std::string others_;
  std::int64_t failures_ = 0;
};

}  // namespace rometrace::cli

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "cli/commands/batch_progress.hpp"
#include "cli/files/results_file.hpp"
#include "cli/options/options.hpp"
#include "rometrace/facts/shard.hpp"
#include "rometrace/study/batch.hpp"
#include "rometrace/study/verdict.hpp"

namespace rometrace::cli {

/// Where a batch's lines go: nothing is standard output. Throws Error where that is a terminal and nobody asked for
/// it.
std::optional<std::string> batch_output_path(const Options& options, const std::optional<Shard>& shard);

/// Appends a batch's lines, counts them and says how far it is.
class BatchWriter {
 public:
  /// `verb` is what becomes of a fact that is neither skipped nor failed: "traced", "probed", "edited".
  BatchWriter(ResultsFile& file, const ResultsDone& done, std::int64_t total, std::string_view verb, bool quiet,
              const std::stop_token& stop);

  /// Whether the item's line stands in the file already.
  bool has(const BatchItem& item) const { return item.order <= last_order_; }

  /// A line that stands in the file already is not written again. Throws Error, Interrupted.
  void write(const BatchItem& item, Status status, std::string_view cause, const std::string& reason,
             const std::string& line);

  BatchProgress& progress() { return progress_; }
  const BatchCounts& counts() const { return counts_; }
  const std::map<std::string, std::int64_t>& causes() const { return causes_; }  ///< of the lines written
  bool resumes() const { return resumes_; }  ///< whether what was written can be gone on with

 private:
  ResultsFile& file_;
  bool resumes_;
  std::int64_t last_order_;
  std::stop_token stop_;
  BatchProgress progress_;
  BatchCounts counts_;
  std::map<std::string, std::int64_t> causes_;
  FailureNotes failures_{"in the results only"};
};

/// On stderr: what of a batch of `total` facts a file had when it was opened.
void say_what_is_there(const std::optional<std::string>& path, const ResultsDone& done, std::int64_t total);

/// "1209 facts: 35 traced, 1174 skipped (other_answer 1174); 15 s". Causes are those of this run.
void say_counts(const BatchWriter& writer, double seconds);

/// How far it came, and that the same command goes on from there.
void say_interrupted(const BatchWriter& writer, const std::optional<std::string>& path, std::int64_t total);

}  // namespace rometrace::cli

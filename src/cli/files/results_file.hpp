#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "cli/files/output_file.hpp"
#include "rometrace/facts/shard.hpp"

namespace rometrace::cli {

/// What stood in a results file when a batch began.
struct ResultsDone {
  std::map<std::string, std::int64_t> by_status;  ///< lines: "traced", "skipped", "failed", ...
  std::int64_t lines = 0;                         ///< all of them
  std::int64_t last_order = 0;                    ///< the last line's place in the selection; 0: there is none
  std::uint64_t dropped_bytes = 0;                ///< of a torn line, or what a power cut left, cut off at the end
};

/// The file of a batch's results, JSON Lines: a header, then a line a fact, appended as the facts are done. Constructed
/// before the model is loaded, so that a file that cannot be written is an error at once. Written by the same command
/// again, the file goes on where it stopped, however that was.
///
/// A regular file is locked against a second process until it is closed; the lock dies with the process and leaves
/// nothing behind. A line is written whole, then the next is begun: a killed process loses nothing but the line at
/// hand. At most once a second, and on close(), the lines are made permanent (fdatasync), so that a power cut loses
/// what the last second wrote, which is done again. Symbolic links are followed; the file is never replaced, and keeps
/// its mode and owner.
///
/// Standard output, /dev/null, FIFOs, terminals take the lines as they come, and nothing is read back from them.
class ResultsFile {
 public:
  /// `output`: as of -o; nothing or "-" is standard output. Throws Error: a folder, a socket, read-only, no permission,
  /// folder missing, another process writes it.
  explicit ResultsFile(const std::optional<std::string>& output);

  ~ResultsFile();
  ResultsFile(const ResultsFile&) = delete;
  ResultsFile& operator=(const ResultsFile&) = delete;

  /// Whether the file can be gone on with: true for a regular one, also once it is closed.
  bool resumes() const { return !path_.empty() && !stream_; }

  /// False where the file system knows no locks: nothing then keeps a second process away, worth a warning.
  bool locked() const { return locked_ || !resumes(); }

  /// Writes the header (schema "rometrace/batch/1") into a new or an empty file. Of any other, reads what is there,
  /// cuts off what is torn at the end, and makes ready to append. The facts there must be the first ones of the
  /// header's selection (of its shard). Reads some hundred MB a second, in memory for one line. Throws Error, and
  /// leaves the file as it is: no results of a batch, another header (the first differences named), damage before the
  /// end, facts left out or out of order. Throws Interrupted.
  ResultsDone begin(const nlohmann::ordered_json& header, const std::stop_token& stop = {});

  /// Appends a line, given without its newline. Throws Error: no space, an I/O error, a file that something else
  /// changed or deleted. Nothing of the line is then left in the file where that can be done, else begin() does it the
  /// next time.
  void append(std::string_view line, const std::stop_token& stop = {});

  /// Makes the lines permanent and unlocks the file. To be called once, after the last append(); the destructor does it
  /// as well, without a word about errors. Throws Error.
  void close();

 private:
  void open_regular();
  bool is_at_path() const;
  bool restart_torn_header(std::string_view header) const;
  ResultsDone go_on(const std::string& header, const std::stop_token& stop);
  void write(std::string_view bytes);
  void sync();
  void release() noexcept;
  [[noreturn]] void fail(int error) const;
  [[noreturn]] void fail_to_append(int error) const;
  std::string label() const;

  using Clock = std::chrono::steady_clock;

  std::filesystem::path path_;        ///< as given; empty: standard output
  std::optional<OutputFile> stream_;  ///< of what is no regular file
  int descriptor_ = -1;               ///< of a regular file
  std::uint64_t size_ = 0;            ///< bytes up to the end of the last whole line
  bool created_ = false;              ///< by us, and nothing has been written
  bool locked_ = false;
  bool unsynced_ = false;
  Clock::time_point synced_;
  std::string line_;  ///< the line being written, with its newline; kept for its memory
};

/// The file of one shard of a batch: "results.jsonl" is "results.2-of-4.jsonl" for shard 2/4. Standard output ("-") and
/// what is there and no regular file (/dev/null) stay what they are.
std::string shard_path(const std::string& output, const Shard& shard);

}  // namespace rometrace::cli

#pragma once

#include <sys/stat.h>

#include <filesystem>
#include <stop_token>
#include <string>
#include <string_view>

namespace rometrace::cli {

/// The file of `-o FILE`. Constructed before the model is loaded, so that a file that cannot be written is an error at
/// once; the content comes at the end.
///
/// A regular file, or a name that is not there yet, is written beside and replaces the old file in one step by
/// commit(); until then, and after any failure, the old file is untouched and nothing new is left behind. The target of
/// a symbolic link is replaced, not the link. Mode (and owner, where permitted) of an old file are kept, a new one has
/// 0666 less the umask. Anything else (terminal, /dev/null, FIFO, /dev/stdout, /dev/fd/N) is written to as it is. A
/// FIFO is opened by the first write(), which waits for a reader.
class OutputFile {
 public:
  /// Throws Error: folder missing or not writable, a folder or a socket, read-only, no permission, mount point.
  explicit OutputFile(const std::filesystem::path& path);

  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  /// Appends `content`. Throws Error (no space, reader gone, ...), Interrupted if `stop` is requested while it waits.
  void write(std::string_view content, const std::stop_token& stop = {});

  /// Makes the content permanent under the name given. To be called once, after the last write(). Throws Error.
  void commit();

 private:
  enum class Target { kReplaced, kStream, kFifo };

  void open_target();
  void open_own(int number);
  void open_beside(const struct stat* old);
  void open_fifo(const std::stop_token& stop);
  std::filesystem::path unused_name() const;
  void give_name();
  void release() noexcept;
  [[noreturn]] void fail(int error) const;

  std::filesystem::path shown_path_;  ///< as the user gave it, for messages
  std::filesystem::path path_;        ///< the file itself, behind symbolic links
  std::filesystem::path temporary_;   ///< name of the unfinished file; empty while it has none
  Target target_ = Target::kReplaced;
  int descriptor_ = -1;
};

/// Writes all of `content` to file descriptor 1. Throws Error (closed pipe, no space), Interrupted.
void write_stdout(std::string_view content, const std::stop_token& stop = {});

}  // namespace rometrace::cli

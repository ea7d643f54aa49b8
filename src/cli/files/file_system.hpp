#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>

namespace rometrace::cli {

/// What the programs that write files (OutputFile, ResultsFile) ask of the system alike.

inline constexpr mode_t kNewFileMode = 0666;  ///< the kernel takes the umask off

/// The path as messages show it.
std::string shown(const std::filesystem::path& path);

/// Whether both names lead to one file; "-", a standard stream, is only itself.
bool same_file(const std::string& a, const std::string& b);

/// Throws Error if `output`, of -o where it was given, is `input`.
void check_not_output(const std::string& input, const std::optional<std::string>& output);

/// The folder that holds `path`.
std::filesystem::path folder_of(const std::filesystem::path& path);

/// What the system calls `error` (errno), to stand inside a sentence.
std::string system_message(int error);

/// What `error` (errno) means for someone who writes `path` with -o, and what to do.
std::string writing_advice(int error, const std::filesystem::path& path);

/// The number N of "/dev/stdout", "/dev/stderr", "/dev/fd/N" and "/proc/self/fd/N".
std::optional<int> own_descriptor(const std::filesystem::path& path);

/// `path` with the symbolic links of its last component followed, also if what they lead to is not there.
std::filesystem::path behind_links(std::filesystem::path path);

/// open() that is not kept from its work by signals; closed on exec. -1 and errno on failure.
int open_retrying(const std::filesystem::path& path, int flags, mode_t mode = 0);

/// fsync() where the file system knows it. Returns 0 or the error.
int make_permanent(int descriptor);

/// fdatasync() where the file system knows it: the content, and of what is about the file its size. Returns 0 or the
/// error.
int make_content_permanent(int descriptor);

/// Makes the names in a folder permanent, where the file system knows how.
void make_folder_permanent(const std::filesystem::path& folder);

}  // namespace rometrace::cli

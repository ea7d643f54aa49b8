#include "cli/files/results_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "cli/files/file_system.hpp"
#include "results/file_lock.hpp"
#include "rometrace/error.hpp"
#include "rometrace/results/results_reader.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_line.hpp"

namespace rometrace::cli {

namespace fs = std::filesystem;

namespace {

constexpr const char* kStartAgain = "give another -o, or delete the file to start again";
constexpr auto kSyncInterval = std::chrono::seconds(1);

/// Reads at `offset`, which moves on.
std::size_t read_at(int descriptor, std::uint64_t& offset, std::span<std::byte> buffer, const fs::path& path) {
  for (;;) {
    const ssize_t count = ::pread(descriptor, buffer.data(), buffer.size(), static_cast<off_t>(offset));
    if (count >= 0) {
      offset += static_cast<std::uint64_t>(count);
      return static_cast<std::size_t>(count);
    }
    if (errno != EINTR) throw Error(shown(path) + ": cannot be read: " + system_message(errno));
  }
}

/// Writes all of `bytes` at `offset`. Returns 0 or the error.
int write_at(int descriptor, std::uint64_t offset, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(descriptor, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno != EINTR) return errno;
    if (written == 0) return EIO;
    const auto count = static_cast<std::size_t>(std::max<ssize_t>(0, written));
    bytes.remove_prefix(count);
    offset += count;
  }
  return 0;
}

/// "was made with run.samples 10, this run has 2; and with ...".
std::string in_words(const std::vector<HeaderDifference>& differences) {
  constexpr std::size_t kNamed = 3;
  std::string words;
  for (const auto& difference : std::span(differences).first(std::min(kNamed, differences.size()))) {
    words += words.empty() ? "was made with " : "; with ";
    words += difference.path + " " + difference.there + ", this run has " + difference.here;
  }
  const std::size_t more = differences.size() - std::min(kNamed, differences.size());
  if (more > 0) words += "; and " + std::to_string(more) + " more";
  return words;
}

}  // namespace

ResultsFile::ResultsFile(const std::optional<std::string>& output) : synced_(Clock::now()) {
  if (!output || *output == "-") return;
  path_ = *output;
  struct stat old {};
  const bool exists = !path_.empty() && ::stat(path_.c_str(), &old) == 0;
  if (path_.empty() || own_descriptor(path_) || (exists && !S_ISREG(old.st_mode) && !S_ISDIR(old.st_mode))) {
    stream_.emplace(path_);
    return;
  }
  if ((exists && S_ISDIR(old.st_mode)) || !path_.has_filename()) {
    throw Error(label() + ": is a folder; name a file in it, such as " + shown(path_ / "results.jsonl"));
  }
  try {
    open_regular();
  } catch (...) {
    release();
    throw;
  }
}

ResultsFile::~ResultsFile() {
  release();
}

void ResultsFile::open_regular() {
  // Again if the file was deleted between opening and locking, as a process that ends before its first line does.
  do {
    if (descriptor_ >= 0) ::close(descriptor_);
    created_ = locked_ = false;
    descriptor_ = open_retrying(path_, O_RDWR | O_NOCTTY);
    if (descriptor_ < 0 && errno == ENOENT) {
      // Apart from the first attempt: O_CREAT is refused for an old file of another user in a folder such as /tmp.
      descriptor_ = open_retrying(behind_links(path_), O_RDWR | O_CREAT | O_EXCL, kNewFileMode);
      created_ = descriptor_ >= 0;
      if (!created_ && errno == EEXIST) continue;
    }
    if (descriptor_ < 0) fail(errno);
    locked_ = lock_file(descriptor_, LockKind::kWriting, label(), "wait for it to end, or give another -o");
  } while (descriptor_ < 0 || !is_at_path());
}

/// Whether our file is the one that has the name.
bool ResultsFile::is_at_path() const {
  struct stat ours {
  }, named{};
  return ::fstat(descriptor_, &ours) == 0 && ::stat(path_.c_str(), &named) == 0 && ours.st_dev == named.st_dev &&
         ours.st_ino == named.st_ino;
}

void ResultsFile::release() noexcept {
  if (descriptor_ < 0) return;
  if (created_ && locked_ && is_at_path()) {
    std::error_code ignored;
    fs::remove(behind_links(path_), ignored);  // locked, so it is nobody else's
  }
  if (unsynced_) make_content_permanent(descriptor_);
  ::close(std::exchange(descriptor_, -1));
}

ResultsDone ResultsFile::begin(const nlohmann::ordered_json& header, const std::stop_token& stop) {
  const std::string text = to_line(header);
  if (!resumes()) {
    append(text, stop);
    return {};
  }
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) fail(errno);
  size_ = static_cast<std::uint64_t>(status.st_size);
  if (size_ > 0 && !restart_torn_header(text)) return go_on(text, stop);

  const std::uint64_t torn = size_;
  if (torn > 0 && ::ftruncate(descriptor_, 0) != 0) fail(errno);
  size_ = 0;
  write(text + "\n");
  created_ = false;
  sync();
  make_folder_permanent(folder_of(behind_links(path_)));
  ResultsDone done;
  done.dropped_bytes = torn;
  return done;
}

/// Whether nothing stands there but the beginning of our header, as far as a full disk or a power cut let it come.
bool ResultsFile::restart_torn_header(std::string_view header) const {
  if (size_ > header.size()) return false;
  std::string there(size_, '\0');
  std::uint64_t offset = 0;
  while (offset < size_) {
    const auto rest = std::as_writable_bytes(std::span(there).subspan(offset));
    if (read_at(descriptor_, offset, rest, path_) == 0) return false;
  }
  there.resize(there.find_last_not_of('\0') + 1);
  return header.starts_with(there);
}

ResultsDone ResultsFile::go_on(const std::string& header, const std::stop_token& stop) {
  std::uint64_t offset = 0;
  const auto read = [&](std::span<std::byte> buffer) { return read_at(descriptor_, offset, buffer, path_); };
  ResultsReader reader(label(), kStartAgain, read, size_);
  const auto ours = parse_results_header(header, "the header", "");
  if (const auto found = header_differences(reader.header(), ours, ShardsMay::kNotDiffer); !found.empty()) {
    throw Error(label() + ": " + in_words(found) + "; expected the same settings; " + kStartAgain);
  }
  ResultsDone done;
  std::int64_t expected = ours.shard.index;
  while (const auto line = reader.next()) {
    if (stop.stop_requested()) throw Interrupted();
    if (line->order != expected) {
      throw Error(label() + ": line " + std::to_string(line->number) + ": is fact " + std::to_string(line->order) +
                  ", and fact " + std::to_string(expected) +
                  " is missing; expected all facts up to the last one there; " + kStartAgain);
    }
    expected += ours.shard.count;
    ++done.by_status[line->status];
    ++done.lines;
    done.last_order = line->order;
  }
  done.dropped_bytes = size_ - reader.whole_end();
  if (done.dropped_bytes > 0) {
    if (::ftruncate(descriptor_, static_cast<off_t>(reader.whole_end())) != 0) fail(errno);
    size_ = reader.whole_end();
    sync();
  }
  return done;
}

void ResultsFile::append(std::string_view line, const std::stop_token& stop) {
  assert(!line.empty() && line.find('\n') == std::string_view::npos);
  line_.assign(line).push_back('\n');
  if (stream_) {
    stream_->write(line_, stop);
  } else if (!resumes()) {
    write_stdout(line_, stop);
  } else {
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0) fail(errno);
    if (static_cast<std::uint64_t>(status.st_size) != size_ || status.st_nlink == 0) {
      throw Error(label() + ": was " + (status.st_nlink == 0 ? "deleted" : "changed by another program") +
                  " while the batch was writing it; leave it alone, and run the same command again");
    }
    write(line_);
    if (Clock::now() - synced_ >= kSyncInterval) sync();
  }
}

void ResultsFile::write(std::string_view bytes) {
  if (const int error = write_at(descriptor_, size_, bytes)) {
    // Should this fail as well, the torn line is cut off at the next start.
    [[maybe_unused]] const int cut = ::ftruncate(descriptor_, static_cast<off_t>(size_));
    fail_to_append(error);
  }
  size_ += bytes.size();
  unsynced_ = true;
}

void ResultsFile::sync() {
  const int error = make_content_permanent(descriptor_);
  synced_ = Clock::now();
  unsynced_ = false;
  if (error != 0) fail_to_append(error);
}

void ResultsFile::close() {
  if (stream_) stream_->commit();
  if (descriptor_ < 0) return;
  if (unsynced_) sync();
  // EINTR: Linux has closed it all the same.
  if (::close(std::exchange(descriptor_, -1)) != 0 && errno != EINTR) fail_to_append(errno);
}

std::string ResultsFile::label() const {
  return shown(path_);
}

void ResultsFile::fail(int error) const {
  throw Error(label() + ": " + writing_advice(error, path_));
}

void ResultsFile::fail_to_append(int error) const {
  const bool is_full = error == ENOSPC || error == EDQUOT;
  throw Error(label() + ": " + (is_full ? "no space left" : system_message(error)) + "; " +
              (is_full ? "free some" : "see to it") +
              " and run the same command again, which goes on where this stopped");
}

std::string shard_path(const std::string& output, const Shard& shard) {
  if (output.empty()) return output;
  std::error_code ignored;
  const auto status = fs::status(output, ignored);
  if (output == "-" || own_descriptor(output) || (fs::exists(status) && !fs::is_regular_file(status))) return output;
  const fs::path path = output;
  const std::string part = "." + std::to_string(shard.index) + "-of-" + std::to_string(shard.count);
  return fs::path(path).replace_filename(path.stem().native() + part + path.extension().native()).native();
}

}  // namespace rometrace::cli

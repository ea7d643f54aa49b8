#include "hub/blob_fetch.hpp"

#include <algorithm>
#include <charconv>
#include <string>
#include <system_error>

#include "hub/cache_files.hpp"
#include "hub/incomplete_blob.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {
namespace {

namespace fs = std::filesystem;

/// What arrived is not what was announced: going on is of no use, starting over may be.
class WrongContent : public Error {
 public:
  using Error::Error;
};

std::string exact_bytes(std::uint64_t count) {
  return std::to_string(count) + " bytes";
}

/// The first byte of "bytes 100-199/200".
std::optional<std::uint64_t> first_byte(const HttpHead& head) {
  const std::string range = head.header("content-range").value_or("");
  constexpr std::string_view kUnit = "bytes ";
  if (!range.starts_with(kUnit)) return std::nullopt;
  std::uint64_t first = 0;
  const char* const end = range.data() + range.size();
  const auto [stop, error] = std::from_chars(range.data() + kUnit.size(), end, first);
  return error == std::errc() && stop != end && *stop == '-' ? std::optional(first) : std::nullopt;
}

/// One file on its way from a hub to a cache.
class BlobFetch {
 public:
  BlobFetch(HubClient& hub, const RemoteFile& file, IncompleteBlob& incomplete, const BlobProgress& progress)
      : hub_(hub),
        file_(file),
        incomplete_(incomplete),
        progress_(progress),
        where_(shown_url(file.url)),
        kept_(incomplete.size()) {}

  /// Receives what is missing, and checks it. Throws WrongContent besides the rest.
  void run() {
    receive_all();
    if (file_.size && incomplete_.size() != *file_.size) throw wrong_size();
    if (const auto digest = incomplete_.wrong_hash()) {
      const std::string kind(name_of(hash_kind(file_.blob)));
      throw WrongContent(where_ + ": what was sent has " + kind + " " + *digest + "; expected " + file_.blob);
    }
  }

  void start_over() {
    incomplete_.start_over();
    kept_ = 0;
  }

 private:
  bool is_all_here() const { return file_.size && incomplete_.size() >= *file_.size; }

  WrongContent wrong_size() const {
    return WrongContent(where_ + ": more than " + exact_bytes(*file_.size) + " were sent, the size that was announced");
  }

  void receive_all() {
    Retries retries = hub_.new_retries();
    std::uint64_t most = incomplete_.size();
    report();
    retry(retries, [&] {
      try {
        if (!is_all_here()) receive_rest();
      } catch (const RangeRefused&) {
        start_over();
        throw;
      } catch (const TransientFailure&) {
        // Less than that is what a server sends that drips: its tries come to an end.
        const bool is_new = incomplete_.size() > most;
        if (is_new && static_cast<double>(incomplete_.size() - most) >= hub_.least_progress()) retries.made_progress();
        most = std::max(most, incomplete_.size());
        throw;
      }
    });
  }

  /// One request.
  void receive_rest() {
    const std::uint64_t offset = incomplete_.size();
    bool is_first = true;
    hub_.get(file_, offset, [&](const HttpHead& head, std::span<const std::byte> bytes) {
      if (is_first && offset > 0) go_on_from(offset, head);
      is_first = false;
      if (file_.size && incomplete_.size() + bytes.size() > *file_.size) throw wrong_size();
      incomplete_.append(bytes);
      report();
      return HttpClient::Rest::kWanted;
    });
    if (file_.size && incomplete_.size() < *file_.size) {
      throw TransientFailure(
          where_ + ": " + exact_bytes(incomplete_.size()) + " of " + exact_bytes(*file_.size) + " arrived",
          TransientFailure::Contact::kMade);
    }
  }

  void go_on_from(std::uint64_t offset, const HttpHead& head) {
    constexpr long kPartialContent = 206;
    if (head.status != kPartialContent) {
      start_over();  // a server that knows no ranges sends the whole file
    } else if (first_byte(head) != offset) {
      throw WrongContent(where_ + ": the server sends other bytes than it was asked for");
    }
  }

  void report() const {
    if (progress_) progress_(incomplete_.size(), kept_);
  }

  HubClient& hub_;
  const RemoteFile& file_;
  IncompleteBlob& incomplete_;
  const BlobProgress& progress_;
  std::string where_;
  std::uint64_t kept_;  ///< bytes that were there before
};

}  // namespace

bool has_blob(const RemoteFile& file, const fs::path& blob) {
  std::error_code ignored;
  if (!fs::is_regular_file(blob, ignored)) return false;
  return !file.size || fs::file_size(blob, ignored) == *file.size;
}

void fetch_blob(HubClient& hub, const RemoteFile& file, const BlobPlace& place, const BlobProgress& progress,
                const Note& note, const std::stop_token& stop) {
  const BlobLock lock(place.lock, file.name, note, stop);
  if (has_blob(file, place.blob)) return;
  IncompleteBlob incomplete(place.blob, stop);
  BlobFetch fetch(hub, file, incomplete, progress);
  try {
    fetch.run();
  } catch (const WrongContent& wrong) {
    if (note) note(std::string(wrong.what()) + "; starting over");
    fetch.start_over();
    try {
      fetch.run();
    } catch (const WrongContent& again) {
      incomplete.start_over();
      throw Error(std::string(again.what()) +
                  ", twice; nothing of it was kept; run it again later, or with another "
                  "HF_ENDPOINT");
    }
  }
  incomplete.finish();
}

}  // namespace rometrace

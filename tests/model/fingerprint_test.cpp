#include "rometrace/model/fingerprint.hpp"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"

namespace rometrace::fingerprint_test {
namespace {

using testing::Contains;
using testing::message_of;
using testing::TemporaryFolder;
using Files = std::vector<std::filesystem::path>;

TEST_CASE("one file's fingerprint is its SHA-256") {
  const TemporaryFolder folder;
  // FIPS 180-2: "abc", the empty text, a million letters a.
  CHECK(weights_sha256(Files{folder.write("abc", "abc")}) ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(weights_sha256(Files{folder.write("empty", "")}) ==
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(weights_sha256(Files{folder.write("million", std::string(1'000'000, 'a'))}) ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

// As if it had been written a while ago; the time of the inode's last change cannot be set, and is waited for.
void let_settle(const std::filesystem::path& path) {
  std::filesystem::last_write_time(path, std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
  std::this_thread::sleep_for(std::chrono::milliseconds(6100));
}

TEST_CASE("a digest is kept for files that stay as they are, and never given for others") {
  const TemporaryFolder folder, cache;
  const auto entries = [&] {
    return std::distance(std::filesystem::recursive_directory_iterator(cache.path()),
                         std::filesystem::recursive_directory_iterator());
  };
  const auto a = folder.write("a", "abc");
  const auto digest = weights_sha256(Files{a});
  CHECK(cached_weights_sha256(Files{a}, cache.path()) == digest);
  CHECK(entries() == 0);  // a file that was written just now is not trusted to show a further change
  CHECK(cached_weights_sha256(Files{a}, {}) == digest);
  let_settle(a);
  CHECK(cached_weights_sha256(Files{a}, cache.path()) == digest);
  CHECK(entries() == 2);  // folder and file
  std::filesystem::path kept;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(cache.path())) {
    if (entry.is_regular_file()) kept = entry.path();
  }
  std::ofstream(kept) << std::string(64, 'e') << "\n";  // what is kept is what is given
  CHECK(cached_weights_sha256(Files{a}, cache.path()) == std::string(64, 'e'));
  std::ofstream(kept) << "torn";
  CHECK(cached_weights_sha256(Files{a}, cache.path()) == digest);
  folder.write("a", "abd");  // same size
  CHECK(cached_weights_sha256(Files{a}, cache.path()) == weights_sha256(Files{a}));
}

TEST_CASE("a file longer than the buffer is hashed to its last byte") {
  const TemporaryFolder folder;
  const std::size_t mebibyte = 1U << 20U;
  std::string text(2 * mebibyte + 1, 'a');
  const std::string all = weights_sha256(Files{folder.write("a", text)});
  text.back() = 'b';
  CHECK(weights_sha256(Files{folder.write("b", text)}) != all);
  text.pop_back();
  CHECK(weights_sha256(Files{folder.write("c", text)}) ==
        "5256ec18f11624025905d057d6befb03d77b243511ac5f77ed5e0221ce6d84b5");
}

TEST_CASE("the fingerprint of several files is that of sha256sum's lines, in order of name") {
  const TemporaryFolder folder;
  const auto a = folder.write("model-1.safetensors", "abc");
  const auto b = folder.write("model-2.safetensors", "");
  const auto lines =
      folder.write("lines",
                   "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  model-1.safetensors\n"
                   "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  model-2.safetensors\n");
  CHECK(weights_sha256(Files{a, b}) == weights_sha256(Files{lines}));
  CHECK(weights_sha256(Files{b, a}) == weights_sha256(Files{lines}));
}

TEST_CASE("a request to stop ends the reading") {
  const TemporaryFolder folder;
  std::stop_source stop;
  stop.request_stop();
  CHECK_THROWS_AS(weights_sha256(Files{folder.write("a", "a")}, stop.get_token()), Interrupted);
}

TEST_CASE("a file that cannot be read is named") {
  const TemporaryFolder folder;
  CHECK(message_of<Error>([&] { weights_sha256(Files{folder.path() / "x"}); }) == Contains("x: no such file"));
  CHECK(message_of<Error>([&] { weights_sha256(Files{folder.path()}); }) == Contains("is a folder"));
}

}  // namespace
}  // namespace rometrace::fingerprint_test

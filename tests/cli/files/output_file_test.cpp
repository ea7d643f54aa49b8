#include "cli/files/output_file.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "checks.hpp"
#include "file_size_limit.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"

namespace rometrace::cli::output_file_test {

namespace {

namespace fs = std::filesystem;
using testing::FileSizeLimit;
using testing::message_of;

/// A temporary folder with what these tests ask of it.
class Folder : public testing::TemporaryFolder {
 public:
  fs::path operator/(const char* name) const { return path() / name; }

  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (const auto& entry : fs::directory_iterator(path())) {
      result.push_back(entry.path().filename().string());
    }
    return result;
  }
};

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void put(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

mode_t mode_of(const fs::path& path) {
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return status.st_mode & 07777U;
}

std::string message_for(const fs::path& path) {
  return message_of<Error>([&] { const OutputFile file(path); });
}

void write_file(const fs::path& path, std::string_view text) {
  OutputFile file(path);
  file.write(text);
  file.commit();
}

/// Descriptor 1 leads to `descriptor` while this lives; nothing else must be printed meanwhile.
class StandardOutput {
 public:
  explicit StandardOutput(int descriptor) : old_(::dup(STDOUT_FILENO)) { ::dup2(descriptor, STDOUT_FILENO); }
  ~StandardOutput() {
    ::dup2(old_, STDOUT_FILENO);
    ::close(old_);
  }
  StandardOutput(const StandardOutput&) = delete;
  StandardOutput& operator=(const StandardOutput&) = delete;

 private:
  int old_;
};

class IgnoredSigpipe {
 public:
  IgnoredSigpipe() : old_(std::signal(SIGPIPE, SIG_IGN)) {}
  ~IgnoredSigpipe() { std::signal(SIGPIPE, old_); }
  IgnoredSigpipe(const IgnoredSigpipe&) = delete;
  IgnoredSigpipe& operator=(const IgnoredSigpipe&) = delete;

 private:
  void (*old_)(int);
};

std::string read_all(int descriptor) {
  std::string text;
  char buffer[4096];
  for (ssize_t count = 0; (count = ::read(descriptor, buffer, sizeof buffer)) > 0;) {
    text.append(buffer, static_cast<std::size_t>(count));
  }
  return text;
}

}  // namespace

TEST_CASE("a new file holds what was written and has the mode that the umask leaves") {
  const Folder folder;
  const mode_t old = ::umask(027);
  write_file(folder / "new.json", "{}\n");
  ::umask(old);
  CHECK(read(folder / "new.json") == "{}\n");
  CHECK(mode_of(folder / "new.json") == 0640);
  CHECK(folder.names() == std::vector<std::string>{"new.json"});
}

TEST_CASE("pieces are appended in order, also those larger than a pipe's buffer") {
  const Folder folder;
  const std::string large(300000, 'x');
  {
    OutputFile file(folder / "a");
    file.write("1");
    file.write(large);
    file.write("");
    file.write("2");
    file.commit();
  }
  CHECK(read(folder / "a") == "1" + large + "2");
}

TEST_CASE("an old file is replaced whole and keeps its mode") {
  const Folder folder;
  put(folder / "a", "a much longer old text");
  ::chmod((folder / "a").c_str(), 0600);
  write_file(folder / "a", "new");
  CHECK(read(folder / "a") == "new");
  CHECK(mode_of(folder / "a") == 0600);
  CHECK(folder.names().size() == 1);
}

TEST_CASE("whoever has the old file open keeps reading the old file") {
  const Folder folder;
  put(folder / "a", "old");
  std::ifstream reader(folder / "a");
  write_file(folder / "a", "new");
  CHECK(std::string(std::istreambuf_iterator<char>(reader), {}) == "old");
}

TEST_CASE("without commit the old file is untouched and nothing is left behind") {
  const Folder folder;
  put(folder / "a", "old");
  {
    OutputFile file(folder / "a");
    file.write("new");
    CHECK(read(folder / "a") == "old");
  }
  { const OutputFile file(folder / "b"); }
  CHECK(read(folder / "a") == "old");
  CHECK(folder.names() == std::vector<std::string>{"a"});
}

TEST_CASE("a failed write leaves the old file untouched and nothing else behind") {
  const Folder folder;
  put(folder / "a", "old");
  std::string message;
  {
    const FileSizeLimit limit(5000);
    OutputFile file(folder / "a");
    message = message_of<Error>([&] { file.write(std::string(20000, 'x')); });
  }
  CHECK(message == (folder / "a").string() + ": file too large; choose another file with -o");
  CHECK(read(folder / "a") == "old");
  CHECK(folder.names() == std::vector<std::string>{"a"});
}

TEST_CASE("a symbolic link stays, and the file that it leads to is replaced") {
  const Folder folder;
  fs::create_directory(folder / "d");
  put(folder / "d/target", "old");
  fs::create_symlink("d/target", folder / "middle");
  fs::create_symlink("middle", folder / "link");
  write_file(folder / "link", "new");
  CHECK(fs::is_symlink(folder / "link"));
  CHECK(fs::is_symlink(folder / "middle"));
  CHECK(read(folder / "d/target") == "new");
}

TEST_CASE("a link to a file that is not there makes that file") {
  const Folder folder;
  fs::create_symlink("target", folder / "link");
  write_file(folder / "link", "new");
  CHECK(fs::is_symlink(folder / "link"));
  CHECK(read(folder / "target") == "new");
}

TEST_CASE("a file name alone is taken in the current folder") {
  const Folder folder;
  const auto before = fs::current_path();
  fs::current_path(folder.path());
  write_file("a", "new");
  fs::current_path(before);
  CHECK(read(folder / "a") == "new");
}

TEST_CASE("what cannot be written is an error at once, with what to do") {
  const Folder folder;
  const std::string name = folder.path().string();
  put(folder / "file", "old");
  CHECK(message_for("") == "-o: the file name is empty; give a name, or leave -o out for standard output");
  CHECK(message_for(folder.path()) == name + ": is a folder; name a file in it, such as " + name + "/trace.json");
  CHECK(message_for(folder / "new/") ==
        name + "/new/: is a folder; name a file in it, such as " + name + "/new/trace.json");
  CHECK(message_for(folder / "no/a") ==
        name + "/no/a: the folder " + name + "/no does not exist; make it or choose another with -o");
  CHECK(message_for(folder / "file/a") ==
        name + "/file/a: " + name + "/file is not a folder; choose another file with -o");
  CHECK(
      message_for(folder / std::string(300, 'x').c_str()).ends_with("file name too long; choose another file with -o"));
  fs::create_symlink("loop", folder / "loop");
  CHECK(message_for(folder / "loop") == name + "/loop: too many levels of symbolic links; choose another file with -o");
  CHECK(message_for("/dev/fd/987") == "/dev/fd/987: file descriptor 987 is not open; choose another file with -o");
}

TEST_CASE("a line break in the name does not break the message") {
  CHECK(message_for("/nowhere/at\nall/a") ==
        "/nowhere/at\\nall/a: the folder /nowhere/at\\nall does not exist; make it or choose another with -o");
}

TEST_CASE("a folder without permission is an error at once") {
  const Folder folder;
  ::chmod(folder.path().c_str(), 0555);
  const bool root = ::geteuid() == 0;  // for whom permissions do not count
  const uid_t nobody = 65534;
  REQUIRE((!root || ::seteuid(nobody) == 0));
  const auto message = message_for(folder / "a");
  REQUIRE((!root || ::seteuid(0) == 0));
  CHECK(message == (folder / "a").string() + ": no permission to write here; choose another file with -o");
}

TEST_CASE("a device is written to, not replaced") {
  write_file("/dev/null", "gone");
  CHECK(fs::is_character_file("/dev/null"));
  OutputFile full("/dev/full");
  CHECK(message_of<Error>([&] { full.write("x"); }) ==
        "/dev/full: no space left; free some or choose another file with -o");
  CHECK(fs::is_character_file("/dev/full"));
}

TEST_CASE("a FIFO is opened when something is written, and stays a FIFO") {
  const Folder folder;
  REQUIRE(::mkfifo((folder / "fifo").c_str(), 0600) == 0);
  OutputFile file(folder / "fifo");
  std::string received;
  std::thread reader([&] { received = read(folder / "fifo"); });
  file.write(std::string(200000, 'x'));
  file.commit();
  reader.join();
  CHECK(received == std::string(200000, 'x'));
  CHECK(fs::is_fifo(folder / "fifo"));
}

TEST_CASE("waiting for a FIFO's reader ends when a stop is requested") {
  const Folder folder;
  REQUIRE(::mkfifo((folder / "fifo").c_str(), 0600) == 0);
  OutputFile file(folder / "fifo");
  std::stop_source stop;
  std::thread stopper([&] { stop.request_stop(); });
  CHECK_THROWS_AS(file.write("x", stop.get_token()), Interrupted);
  stopper.join();
}

TEST_CASE("a FIFO's reader that leaves is an error") {
  const IgnoredSigpipe ignored;
  const Folder folder;
  REQUIRE(::mkfifo((folder / "fifo").c_str(), 0600) == 0);
  OutputFile file(folder / "fifo");
  const int reader = ::open((folder / "fifo").c_str(), O_RDONLY | O_NONBLOCK);
  file.write("x");
  ::close(reader);
  CHECK(message_of<Error>([&] { file.write("x"); }) ==
        (folder / "fifo").string() + ": broken pipe: the reader has gone before the end");
}

TEST_CASE("a socket is an error at once") {
  const Folder folder;
  const int listener = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  (folder / "s").string().copy(address.sun_path, sizeof address.sun_path - 1);
  REQUIRE(::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  CHECK(message_for(folder / "s") ==
        (folder / "s").string() + ": nothing there takes what is written; choose another file with -o");
  ::close(listener);
}

TEST_CASE("/dev/fd/N writes on where the descriptor stands") {
  const Folder folder;
  const int descriptor = ::open((folder / "a").c_str(), O_WRONLY | O_CREAT, 0600);
  REQUIRE(::write(descriptor, "1", 1) == 1);
  write_file("/dev/fd/" + std::to_string(descriptor), "2");
  CHECK(::write(descriptor, "3", 1) == 1);
  ::close(descriptor);
  CHECK(read(folder / "a") == "123");
}

TEST_CASE("a descriptor that is open for reading only is an error at once") {
  const int descriptor = ::open("/dev/null", O_RDONLY);
  const std::string name = "/dev/fd/" + std::to_string(descriptor);
  CHECK(message_for(name).ends_with(" is open for reading only; choose another file with -o"));
  ::close(descriptor);
}

TEST_CASE("standard output takes more than a pipe holds") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const std::string text(200000, 'x');
  std::string received;
  std::thread reader([&] { received = read_all(ends[0]); });
  {
    const StandardOutput redirected(ends[1]);
    ::close(ends[1]);
    write_stdout(text);
  }
  reader.join();
  ::close(ends[0]);
  CHECK(received == text);
}

TEST_CASE("a closed pipe and a full device at standard output are errors") {
  const IgnoredSigpipe ignored;
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  ::close(ends[0]);
  const int full = ::open("/dev/full", O_WRONLY);
  std::string closed_message;
  std::string full_message;
  {
    const StandardOutput redirected(ends[1]);
    closed_message = message_of<Error>([] { write_stdout("x"); });
  }
  {
    const StandardOutput redirected(full);
    full_message = message_of<Error>([] { write_stdout("x"); });
  }
  ::close(ends[1]);
  ::close(full);
  CHECK(closed_message == "standard output: broken pipe; the reader has gone before the end");
  CHECK(full_message == "standard output: no space left; free some or write to another place with -o");
}

TEST_CASE("a reader that does not read does not keep a request to stop from being seen") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  std::stop_source stop;
  stop.request_stop();
  bool interrupted = false;
  {
    const StandardOutput redirected(ends[1]);
    try {
      write_stdout(std::string(200000, 'x'), stop.get_token());
    } catch (const Interrupted&) {
      interrupted = true;
    }
  }
  ::close(ends[0]);
  ::close(ends[1]);
  CHECK(interrupted);
}

}  // namespace rometrace::cli::output_file_test

#include "cli/files/results_file.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "batch_files.hpp"
#include "checks.hpp"
#include "file_size_limit.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"

namespace rometrace::cli::results_file_test {
namespace {

namespace fs = std::filesystem;
using testing::batch_file;
using testing::batch_header;
using testing::batch_line;
using testing::Contains;
using testing::FileSizeLimit;
using testing::message_of;
using testing::read_bytes;
using testing::TemporaryFolder;

/// Goes on with the facts of a batch up to `last`, as a batch does.
ResultsDone write_batch(const fs::path& path, std::int64_t selected, const Shard& shard, std::int64_t last) {
  ResultsFile file(path.string());
  CHECK(file.resumes());
  const auto header = shard == Shard() ? batch_header(selected) : batch_header(selected, shard);
  const auto done = file.begin(header);
  for (std::int64_t order = done.last_order + 1; order <= last; ++order) {
    if (shard.holds(order)) file.append(batch_line(order, order % 3 == 0 ? "skipped" : "traced"));
  }
  file.close();
  CHECK(file.resumes());
  return done;
}

/// What beginning with `header` says against the file, which must be left as it is.
std::string refusal(const fs::path& path, const nlohmann::ordered_json& header) {
  const std::string before = read_bytes(path);
  const std::string message = message_of<Error>([&] {
    ResultsFile file(path.string());
    file.begin(header);
  });
  CHECK(read_bytes(path) == before);
  CHECK(testing::is_one_line(message));
  return message;
}

std::size_t files_in(const TemporaryFolder& folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()));
}

// --- going on -----------------------------------------------------------------------------------------------------

TEST_CASE("a new file has the header and the lines") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "r.jsonl";
  const auto done = write_batch(path, 7, {}, 7);
  CHECK(done.lines == 0);
  CHECK(done.last_order == 0);
  CHECK(read_bytes(path) == batch_file(7, {}, 7));
  CHECK(files_in(folder) == 1);
}

TEST_CASE("an empty file is begun") {
  const TemporaryFolder folder;
  const auto path = folder.write("r.jsonl", "");
  write_batch(path, 7, {}, 7);
  CHECK(read_bytes(path) == batch_file(7, {}, 7));
}

TEST_CASE("a file goes on where it stopped and counts what is there") {
  const TemporaryFolder folder;
  for (const Shard& shard : {Shard{}, Shard{2, 3}}) {
    for (std::int64_t last = 0; last <= 10; ++last) {
      const auto path = folder.write("r.jsonl", batch_file(10, shard, last));
      const auto done = write_batch(path, 10, shard, 10);
      CHECK(read_bytes(path) == batch_file(10, shard, 10));
      std::int64_t lines = 0, skipped = 0;
      for (std::int64_t order = 1; order <= last; ++order) {
        lines += shard.holds(order) ? 1 : 0;
        skipped += shard.holds(order) && order % 3 == 0 ? 1 : 0;
      }
      CHECK(done.lines == lines);
      CHECK((done.by_status.contains("skipped") ? done.by_status.at("skipped") : 0) == skipped);
      CHECK(done.dropped_bytes == 0);
    }
  }
}

TEST_CASE("a file cut anywhere becomes what it was") {
  const TemporaryFolder folder;
  const std::string whole = batch_file(4, {}, 4);
  for (std::size_t size = 0; size <= whole.size(); size += size < 100 ? 1 : 61) {
    const auto path = folder.write("r.jsonl", whole.substr(0, size));
    const std::string before = whole.substr(0, whole.substr(0, size).rfind('\n') + 1);
    const auto done = write_batch(path, 4, {}, 4);
    REQUIRE(read_bytes(path) == whole);
    REQUIRE(done.dropped_bytes == size - before.size());
  }
}

TEST_CASE("what a power cut leaves at the end is cut off") {
  const TemporaryFolder folder;
  const std::string whole = batch_file(6, {}, 6);
  const std::string three = batch_file(6, {}, 3);
  const std::string zeros(5000, '\0');
  std::string hole = batch_line(4);
  hole.replace(300, 1000, std::string(1000, '\0'));
  std::string garbage = batch_line(4);
  garbage.replace(700, 20, "\x01\xFF{]\"\n}\x80\\, ,\n}{\"\"\"::");
  std::string misread = batch_line(4);
  misread[900] = 'x';  // between the line's good head and its good end
  const std::vector<std::string> tails = {zeros,
                                          zeros + "\n",
                                          "\n",
                                          "\n\n\n",
                                          hole + "\n",
                                          hole,
                                          "}\n",
                                          "\n}\n",
                                          hole + "\n" + hole + "\n" + zeros,
                                          garbage + "\n",
                                          misread + "\n",
                                          misread + "\n" + misread + "\n" + batch_line(5).substr(0, 400),
                                          batch_line(4).substr(0, 100) + zeros,
                                          batch_line(4).substr(500) + "\n"};
  for (const auto& tail : tails) {
    const auto path = folder.write("r.jsonl", three + tail);
    const auto done = write_batch(path, 6, {}, 6);
    CHECK(done.lines == 3);
    CHECK(done.dropped_bytes == tail.size());
    CHECK(read_bytes(path) == whole);
  }
}

TEST_CASE("a header that a full disk or a power cut broke off is written again") {
  const TemporaryFolder folder;
  const std::string header = batch_header(6).dump();
  for (const auto& text : {header.substr(0, 1), header.substr(0, 30), header,
                           header.substr(0, 30) + std::string(50, '\0'), std::string(100, '\0')}) {
    const auto path = folder.write("r.jsonl", text);
    CHECK(write_batch(path, 6, {}, 6).dropped_bytes == text.size());
    CHECK(read_bytes(path) == batch_file(6, {}, 6));
  }
}

TEST_CASE("a process killed at any moment loses no whole line and writes none twice") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "r.jsonl";
  constexpr std::int64_t kFacts = 3000;
  const auto line = [](std::int64_t order) {
    return order % 500 == 0 ? batch_line(order) : batch_line(order, "skipped");
  };
  std::mt19937 random(5);
  std::uniform_int_distribution<int> early(0, 5000), growth(1, 2000);
  const auto size = [&] { return fs::exists(path) ? fs::file_size(path) : 0; };
  std::string expected = batch_header(kFacts).dump() + "\n";
  for (std::int64_t order = 1; order <= kFacts; ++order) expected += line(order) + "\n";
  int kills = 0, finishes = 0, progresses = 0;
  for (bool last = false, finished = false; !last || !finished;) {
    last = kills >= 100;
    const auto before = size();
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      try {
        ResultsFile file(path.string());
        const auto done = file.begin(batch_header(kFacts));
        for (std::int64_t order = done.last_order + 1; order <= kFacts; ++order) file.append(line(order));
        file.close();
      } catch (...) {
        ::_exit(1);
      }
      ::_exit(0);
    }
    int status = 0;
    pid_t ended = 0;
    if (!last && kills % 4 == 0) {  // while it reads what is there, or soon after
      std::this_thread::sleep_for(std::chrono::microseconds(early(random)));
    } else if (!last) {
      const auto enough = before + static_cast<std::uintmax_t>(growth(random));
      while (size() < enough && (ended = ::waitpid(child, &status, WNOHANG)) == 0) std::this_thread::yield();
    }
    if (!last && ended == 0) ::kill(child, SIGKILL);
    if (ended == 0) REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE((WIFSIGNALED(status) || WEXITSTATUS(status) == 0));
    progresses += size() > before ? 1 : 0;
    finished = WIFEXITED(status);
    kills += finished ? 0 : 1;
    if (!finished) continue;
    ++finishes;
    REQUIRE((read_bytes(path) == expected));
    CHECK(files_in(folder) == 1);
    if (!last) fs::remove(path);
  }
  MESSAGE(kills, " kills, progress in ", progresses, ", finished ", finishes, " times");
  CHECK(progresses > 30);
}

TEST_CASE("a finished file is left as it is") {
  const TemporaryFolder folder;
  const auto path = folder.write("r.jsonl", batch_file(5, {}, 5));
  CHECK(write_batch(path, 5, {}, 5).lines == 5);
  CHECK(read_bytes(path) == batch_file(5, {}, 5));
}

TEST_CASE("the header's members may stand in another order") {
  const TemporaryFolder folder;
  const auto sorted = nlohmann::json(batch_header(5)).dump();
  const auto path = folder.write("r.jsonl", sorted + "\n" + batch_line(1) + "\n");
  CHECK(write_batch(path, 5, {}, 2).lines == 1);
}

TEST_CASE("a link's target is written") {
  const TemporaryFolder folder;
  fs::create_symlink("target", folder.path() / "link");
  write_batch(folder.path() / "link", 3, {}, 2);
  CHECK(fs::is_symlink(folder.path() / "link"));
  write_batch(folder.path() / "link", 3, {}, 3);
  CHECK(read_bytes(folder.path() / "target") == batch_file(3, {}, 3));
}

TEST_CASE("reading what is there takes memory for a line, and little time") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "r.jsonl";
  const std::string line = batch_line(1), tail = line.substr(line.find(",\"id\""));
  const std::string head = line.substr(0, line.find("\"order\":")) + "\"order\":";
  constexpr std::int64_t kLines = 50000;
  {
    std::ofstream stream(path, std::ios::binary);
    stream << batch_header(kLines).dump() << '\n';
    for (std::int64_t order = 1; order <= kLines; ++order) stream << head << order << tail << '\n';
  }
  const auto megabytes = static_cast<double>(fs::file_size(path)) / 1e6;
  rusage before{}, after{};
  ::getrusage(RUSAGE_SELF, &before);
  const auto start = std::chrono::steady_clock::now();
  ResultsFile file(path.string());
  CHECK(file.begin(batch_header(kLines)).lines == kLines);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  ::getrusage(RUSAGE_SELF, &after);
  const auto grown = static_cast<double>(after.ru_maxrss - before.ru_maxrss) / 1e3;  // ru_maxrss is in KB
  MESSAGE(megabytes, " MB in ", seconds, " s, ", grown, " MB more memory");
  CHECK(grown < megabytes / 3);
  CHECK(megabytes > 100);
  CHECK(megabytes / seconds > 30);  // far below what is measured, for busy machines and sanitizers
}

// --- what is refused ----------------------------------------------------------------------------------------------

TEST_CASE("other settings are refused with the differences named") {
  const TemporaryFolder folder;
  const auto path = folder.write("r.jsonl", batch_file(5, {}, 3));
  auto header = batch_header(5);
  header["run"]["noise"]["sigma"] = 0.2;
  CHECK(refusal(path, header) ==
        path.string() +
            ": was made with run.noise.sigma 0.25730303674936295, this run has 0.2; expected the "
            "same settings; give another -o, or delete the file to start again");
  header["kinds"] = {"state"};
  CHECK(refusal(path, header) ==
        Contains("was made with run.noise.sigma 0.25730303674936295, this run has 0.2; with kinds "
                 "[\"state\",\"mlp\"], this run has [\"state\"]; expected"));
  header["model"]["weights_sha256"] = "c";
  header["window"] = 5;
  CHECK(refusal(path, header) == Contains("; and 1 more; expected"));
  CHECK(refusal(path, batch_header(5, {1, 2})) == Contains("shard null, this run has {\"index\":1,\"count\":2}"));
  header = batch_header(5);
  header.erase("only");
  header["extra"] = true;
  CHECK(refusal(path, header) ==
        Contains("with extra nothing, this run has true; with only null, this run has nothing"));
  header = batch_header(5);
  header["facts"]["files"].push_back({{"name", "more"}});
  CHECK(refusal(path, header) == Contains("facts.files [{"));
  header = batch_header(5);
  header["facts"]["files"][0]["sha256"] = "other\n";
  CHECK(refusal(path, header) == Contains("this run has \"other\\n\""));
}

TEST_CASE("what the user calls model and facts does not tell batches apart") {
  const TemporaryFolder folder;
  const std::string path = (folder.path() / "r.jsonl").string();
  ResultsFile(path).begin(batch_header(5));
  auto header = batch_header(5);
  header["facts"]["files"][0]["name"] = "elsewhere.json";
  header["model"]["name"] = "another/folder";
  CHECK(ResultsFile(path).begin(header).lines == 0);
}

TEST_CASE("what is not a batch's results is refused") {
  const TemporaryFolder folder;
  const auto message = [&](const std::string& text) {
    const auto path = folder.write("f", text);
    const std::string found = refusal(path, batch_header(5));
    CHECK(found.starts_with(path.string() + ": "));
    CHECK(found.ends_with("; give another -o, or delete the file to start again"));
    return found;
  };
  std::string random;
  std::mt19937 numbers(1);
  for (int i = 0; i < 100000; ++i) random += static_cast<char>(numbers() & 255U);
  CHECK(message("some notes\nof mine\n") == Contains("its first line is \"some notes\"; expected the header"));
  CHECK(message("x") == Contains("its first line is \"x\""));
  CHECK(message("\n") == Contains("its first line is \"\""));
  CHECK(message("{}\n") == Contains("its first line is \"{}\""));
  CHECK(message("null\n") == Contains("its first line is \"null\""));
  CHECK(message(random) == Contains("expected the header"));
  CHECK(message(std::string(1000000, '\0')) == Contains("expected the header"));
  CHECK(message(std::string(3000000, 'a')) == Contains("expected the header"));
  CHECK(message(std::string(100000, '[') + "\n") == Contains("expected the header"));
  CHECK(message(batch_line(1) + "\n") == Contains("is of the schema \"rometrace/trace/1\", so it holds no batch"));
  CHECK(message("{\"schema\":\"rometrace/batch/2\"}\n") ==
        Contains("\"rometrace/batch/2\", of another version of rometrace"));
  CHECK(message("{\"schema\":\"rometrace/batch/1\"}\n") == Contains("its header has no "));
  CHECK(message("{\"schema\":\"rometrace/batch/1\",\"rometrace\":\"0.0.9") == Contains("its header is cut short"));
  CHECK(message("{\"schema\":\"rometrace/batch/1\",\"command\":\"trace\",\"facts\":{\"selected\":-1}}\n") ==
        Contains("no number of facts"));
  CHECK(message("{\"schema\":\"rometrace/batch/1\",\"command\":\"trace\",\"facts\":{\"selected\":5},\"shard\":7}\n") ==
        Contains("its header has the shard 7"));
}

TEST_CASE("damage before the end is refused and named") {
  const TemporaryFolder folder;
  const std::string head = batch_header(5).dump() + "\n" + batch_line(1) + "\n";
  const std::string rest = batch_line(3) + "\n";
  const auto message = [&](const std::string& middle) {
    return refusal(folder.write("f", head + middle + "\n" + rest), batch_header(5));
  };
  CHECK(message("garbled") ==
        (folder.path() / "f").string() +
            ": line 3 is damaged, and line 4 behind it is not; expected damage only at the end, as a "
            "power cut leaves it; restore the file, or go on from what is before the damage "
            "(head -n 2)");
  CHECK(message("") == Contains("line 3 is damaged"));
  CHECK(message(batch_line(2).substr(0, 300)) == Contains("line 3 is damaged"));
  CHECK(message(batch_line(2).substr(300)) == Contains("line 3 is damaged"));
  CHECK(message(batch_line(2).substr(0, 300) + "\n" + std::string(4096, '\0')) ==
        Contains("line 3 is damaged, and line 5"));
}

TEST_CASE("facts left out, out of order or of elsewhere are refused") {
  const TemporaryFolder folder;
  const auto message = [&](std::initializer_list<std::int64_t> orders, const nlohmann::ordered_json& header) {
    std::string text = header.dump() + "\n";
    for (const auto order : orders) text += batch_line(order) + "\n";
    return refusal(folder.write("f", text), header);
  };
  const auto whole = batch_header(5), part = batch_header(5, {2, 2});
  CHECK(message({2}, whole) == Contains("line 2: is fact 2, and fact 1 is missing"));
  CHECK(message({1, 2, 5}, whole) == Contains("line 4: is fact 5, and fact 3 is missing"));
  CHECK(message({1, 1}, whole) == Contains("line 3: is fact 1, behind fact 1"));
  CHECK(message({1, 2, 1}, whole) == Contains("line 4: is fact 1, behind fact 2"));
  CHECK(message({1, 2, 3, 4, 5, 6}, whole) == Contains("line 7: is fact 6; expected one of the 5"));
  CHECK(message({0}, whole) == Contains("is fact 0"));
  CHECK(message({2, 3}, part) == Contains("line 3: is fact 3, which is not in shard 2/2"));
  CHECK(message({4}, part) == Contains("line 2: is fact 4, and fact 2 is missing"));
  for (const char* line : {"{}", "[]", "1", "{\"schema\":\"rometrace/trace/1\",\"status\":\"traced\"}",
                           "{\"schema\":\"rometrace/trace/1\",\"status\":\"traced\",\"fact\":{\"order\":\"1\"}}",
                           "{\"schema\":\"rometrace/trace/1\",\"status\":\"traced\",\"fact\":[1],\"order\":1}",
                           "{\"schema\":\"rometrace/trace/1\",\"status\":\"traced\",\"fact\":{\"x\":{\"order\":1}}}",
                           "{\"schema\":\"rometrace/probe/1\",\"status\":\"traced\",\"fact\":{\"order\":1}}"}) {
    const std::string found = refusal(folder.write("f", whole.dump() + "\n" + line + "\n"), whole);
    CHECK(found == Contains("line 2: is no line of a batch's results"));
  }
  // A Windows editor's line ends: still JSON, so nothing is taken for torn.
  std::string text = batch_file(5, {}, 3);
  for (std::size_t i = 0; (i = text.find('\n', i)) != std::string::npos; i += 2) text.insert(i, "\r");
  const auto path = folder.write("f", text);
  CHECK(write_batch(path, 5, {}, 5).lines == 3);
}

TEST_CASE("a second writer is refused and the lock goes with the file") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "r.jsonl";
  fs::create_symlink("r.jsonl", folder.path() / "link");
  for (int round = 0; round < 2; ++round) {  // a new file, and an old one
    ResultsFile first(path.string());
    CHECK(first.locked());
    for (const auto& name : {path, folder.path() / "link"}) {
      CHECK(message_of<Error>([&] { ResultsFile second(name.string()); }) ==
            name.string() + ": another rometrace (process " + std::to_string(::getpid()) +
                ") is writing it; wait for it to end, or give another -o");
    }
    first.begin(batch_header(3));
    CHECK(message_of<Error>([&] { ResultsFile second(path.string()); }) == Contains("is writing it"));
    first.close();
  }
  CHECK(files_in(folder) == 2);
  const ResultsFile again(path.string());
}

TEST_CASE("a file that was made and never begun is taken away") {
  const TemporaryFolder folder;
  { const ResultsFile file((folder.path() / "r.jsonl").string()); }
  CHECK(files_in(folder) == 0);
  folder.write("r.jsonl", "");
  { const ResultsFile file((folder.path() / "r.jsonl").string()); }
  CHECK(files_in(folder) == 1);  // not ours to take away
  {
    ResultsFile file((folder.path() / "s.jsonl").string());
    fs::rename(folder.path() / "s.jsonl", folder.path() / "t.jsonl");
    folder.write("s.jsonl", "of another");
  }
  CHECK(read_bytes(folder.path() / "s.jsonl") == "of another");
}

TEST_CASE("files deleted between opening and locking are opened again") {
  const TemporaryFolder folder;
  const std::string path = (folder.path() / "r.jsonl").string();
  std::vector<std::thread> threads;
  std::atomic<int> held = 0, most = 0, taken = 0;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 500; ++round) {
        try {
          const ResultsFile file(path);
          const int now = ++held;
          if (now > most) most = now;
          ++taken;
          --held;
        } catch (const Error&) {
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(most == 1);
  CHECK(taken > 100);
  // Who makes the file and loses the race for its lock leaves it, empty: it is the winner's now.
  CHECK(files_in(folder) <= 1);
}

TEST_CASE("what cannot be written is an error at once") {
  const TemporaryFolder folder;
  const auto message = [](const fs::path& path) { return message_of<Error>([&] { ResultsFile file(path.string()); }); };
  const std::string name = folder.path().string();
  CHECK(message(folder.path()) == name + ": is a folder; name a file in it, such as " + name + "/results.jsonl");
  CHECK(message(name + "/new/") ==
        name + "/new/: is a folder; name a file in it, such as " + name + "/new/results.jsonl");
  CHECK(message(folder.path() / "absent/r") ==
        name + "/absent/r: the folder " + name + "/absent does not exist; make it or choose another with -o");
  folder.write("file", "");
  CHECK(message(folder.path() / "file/r") == Contains("is not a folder; choose another file with -o"));
  CHECK(message("") == "-o: the file name is empty; give a name, or leave -o out for standard output");
  CHECK(message("/proc/r.jsonl") == "/proc/r.jsonl: no file can be made in this folder; choose another file with -o");
  fs::create_symlink("loop", folder.path() / "loop");
  CHECK(message(folder.path() / "loop") == Contains("loop: "));
  const int listener = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  (name + "/s").copy(address.sun_path, sizeof address.sun_path - 1);
  REQUIRE(::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  CHECK(message(folder.path() / "s") == name + "/s: nothing there takes what is written; choose another file with -o");
  ::close(listener);
  if (::geteuid() != 0) {
    folder.write("read-only", "");
    fs::permissions(folder.path() / "read-only", fs::perms::owner_read);
    CHECK(message(folder.path() / "read-only") == Contains("no permission to write here"));
  }
}

// --- writing that fails --------------------------------------------------------------------------------------------

TEST_CASE("a line that does not fit is taken back and the file goes on when there is space") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "r.jsonl";
  const std::string whole = batch_file(20, {}, 20);
  {
    const FileSizeLimit limit(whole.size() / 2);
    CHECK(message_of<Error>([&] { write_batch(path, 20, {}, 20); }) ==
          path.string() +
              ": file too large; see to it and run the same command again, which goes on where this stopped");
  }
  const std::string half = read_bytes(path);
  CHECK(half.size() > whole.size() / 3);
  CHECK(half.ends_with("}\n"));
  CHECK(whole.starts_with(half));
  CHECK(write_batch(path, 20, {}, 20).dropped_bytes == 0);
  CHECK(read_bytes(path) == whole);
}

TEST_CASE("a header that does not fit leaves no file behind") {
  const TemporaryFolder folder;
  {
    const FileSizeLimit limit(100);
    CHECK(message_of<Error>([&] { write_batch(folder.path() / "r.jsonl", 20, {}, 20); }) == Contains("file too large"));
  }
  CHECK(files_in(folder) == 0);
}

TEST_CASE("a file that something else changes or deletes meanwhile is an error") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "r.jsonl";
  ResultsFile file(path.string());
  file.begin(batch_header(5));
  file.append(batch_line(1));
  fs::resize_file(path, 10);
  CHECK(message_of<Error>([&] { file.append(batch_line(2)); }) == Contains("was changed by another program"));
  fs::remove(path);
  CHECK(message_of<Error>([&] { file.append(batch_line(2)); }) ==
        Contains("was deleted while the batch was writing it"));
}

// --- streams ------------------------------------------------------------------------------------------------------

TEST_CASE("devices and pipes take the lines as they come") {
  const TemporaryFolder folder;
  const auto stream_to = [](const std::string& name) {
    ResultsFile file(name);
    CHECK_FALSE(file.resumes());
    CHECK(file.locked());
    CHECK(file.begin(batch_header(2)).lines == 0);
    file.append(batch_line(1));
    file.append(batch_line(2));
    file.close();
  };
  stream_to("/dev/null");
  stream_to("/dev/null");

  const fs::path fifo = folder.path() / "fifo";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  std::string received;
  std::thread reader([&] { received = read_bytes(fifo); });
  stream_to(fifo.string());
  reader.join();
  CHECK(received == batch_header(2).dump() + "\n" + batch_line(1) + "\n" + batch_line(2) + "\n");

  const int descriptor = ::open((folder.path() / "appended").c_str(), O_WRONLY | O_CREAT, 0600);
  REQUIRE(::write(descriptor, "before\n", 7) == 7);
  stream_to("/dev/fd/" + std::to_string(descriptor));
  ::close(descriptor);
  CHECK(read_bytes(folder.path() / "appended") == "before\n" + received);
}

TEST_CASE("standard output takes the lines as they come") {
  const TemporaryFolder folder;
  for (const std::optional<std::string>& name : {std::optional<std::string>(), std::optional<std::string>("-")}) {
    const int target = ::open((folder.path() / "out").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    const int old = ::dup(STDOUT_FILENO);
    ::dup2(target, STDOUT_FILENO);
    {
      ResultsFile file(name);
      file.begin(batch_header(1));
      file.append(batch_line(1));
      file.close();
    }
    ::dup2(old, STDOUT_FILENO);
    ::close(old);
    ::close(target);
    CHECK(read_bytes(folder.path() / "out") == batch_header(1).dump() + "\n" + batch_line(1) + "\n");
  }
}

TEST_CASE("a request to stop ends the reading of a large file") {
  const TemporaryFolder folder;
  const auto path = folder.write("r.jsonl", batch_file(5, {}, 5));
  std::stop_source stop;
  stop.request_stop();
  ResultsFile file(path.string());
  CHECK_THROWS_AS(file.begin(batch_header(5), stop.get_token()), Interrupted);
}

TEST_CASE("a shard's file has its number before the last extension") {
  const TemporaryFolder folder;
  CHECK(shard_path("results.jsonl", {1, 4}) == "results.1-of-4.jsonl");
  CHECK(shard_path("results", {2, 4}) == "results.2-of-4");
  CHECK(shard_path("a.b/results", {2, 4}) == "a.b/results.2-of-4");
  CHECK(shard_path("a.b/r.s.jsonl", {10, 12}) == "a.b/r.s.10-of-12.jsonl");
  CHECK(shard_path(".hidden", {1, 1}) == ".hidden.1-of-1");
  CHECK(shard_path("-", {1, 4}) == "-");
  CHECK(shard_path("/dev/null", {1, 4}) == "/dev/null");
  CHECK(shard_path("/dev/stdout", {1, 4}) == "/dev/stdout");
  CHECK(shard_path("/dev/fd/3", {1, 4}) == "/dev/fd/3");
}

}  // namespace
}  // namespace rometrace::cli::results_file_test

// Test-only: rometrace and the tools of the tests, loaded once and run many times. Most of what a small trace takes is
// the loading of libtorch; this program has done that when a request comes, and forks a child that does what the
// program would do that the first argument names.
//   rometrace_zygote < SOCKET   (tests/python/zygote.py starts it)
// SOCKET: one end of a pair of sockets (SOCK_SEQPACKET). A request is one message: strings, each ended by a NUL byte,
// which are the child's folder, the number of its arguments (with the program's name), these, and its environment
// (NAME=VALUE); with it come four descriptors: the child's stdin, stdout and stderr, and a pipe to which the answer
// goes, "PID\n" when the child is there and "STATUS\n", as waitpid() gives it, when it has ended. The end of the socket
// ends the program, and the children with it.

#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "cli/program.hpp"
#include "tools.hpp"

namespace {

constexpr int kSocket = STDIN_FILENO;
constexpr std::size_t kDescriptors = 4;

struct Request {
  std::string folder;
  std::vector<std::string> arguments, environment;
  std::array<int, kDescriptors> descriptors{};  // stdin, stdout, stderr, and the pipe of the answer
};

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "rometrace_zygote: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

void answer(int pipe, int number) {
  const auto line = std::to_string(number) + "\n";
  // Who asked may be gone.
  if (::write(pipe, line.data(), line.size()) < 0 && errno != EPIPE) fail("write to the pipe of an answer");
}

Request parse(std::string_view text) {
  const auto next = [&text] {
    const auto end = text.find('\0');
    if (end == std::string_view::npos) fail("a request without its end");
    const std::string part(text.substr(0, end));
    text.remove_prefix(end + 1);
    return part;
  };
  Request request;
  request.folder = next();
  for (auto count = std::stoul(next()); count > 0; --count) request.arguments.push_back(next());
  while (!text.empty()) request.environment.push_back(next());
  return request;
}

// False at the end of the socket.
bool receive(Request& request) {
  static std::array<char, 1 << 20> text;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof request.descriptors)> control{};
  iovec part{text.data(), text.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const auto length = ::recvmsg(kSocket, &message, MSG_CMSG_CLOEXEC);
  if (length < 0) fail("recvmsg");
  if (length == 0) return false;
  const auto* header = CMSG_FIRSTHDR(&message);
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || header == nullptr ||
      header->cmsg_len != CMSG_LEN(sizeof request.descriptors)) {
    fail("a request that is too long, or has not its four descriptors");
  }
  request = parse({text.data(), static_cast<std::size_t>(length)});
  std::memcpy(request.descriptors.data(), CMSG_DATA(header), sizeof request.descriptors);
  return true;
}

using Main = int (*)(int, char**);

Main main_of(const std::filesystem::path& program) {
  static const std::map<std::string, Main> kPrograms = {{"rometrace", rometrace::cli::run_program},
                                                        {"rometrace_tokenize", rometrace::testing::tokenize},
                                                        {"rometrace_resolve", rometrace::testing::resolve},
                                                        {"rometrace_tensors", rometrace::testing::tensors},
                                                        {"rometrace_moments", rometrace::testing::moments},
                                                        {"rometrace_randomstate", rometrace::testing::randomstate},
                                                        {"rometrace_logits", rometrace::testing::logits}};
  return kPrograms.at(program.filename());
}

// What a program's main() finds after execve().
[[noreturn]] void be_the_program(const Request& request) {
  for (int target = 0; target <= STDERR_FILENO; ++target) {
    const auto at = static_cast<std::size_t>(target);
    if (::dup2(request.descriptors[at], target) < 0) fail("dup2");
  }
  for (const int descriptor : request.descriptors) ::close(descriptor);
  if (::chdir(request.folder.c_str()) != 0) fail(request.folder.c_str());
  ::clearenv();
  for (const auto& variable : request.environment) ::putenv(::strdup(variable.c_str()));
  std::vector<char*> arguments;
  for (const auto& each : request.arguments) arguments.push_back(::strdup(each.c_str()));
  arguments.push_back(nullptr);
  const auto count = static_cast<int>(request.arguments.size());
  rometrace::cli::leave_program(main_of(request.arguments.at(0))(count, arguments.data()));
}

std::map<pid_t, int> children;  // and the pipes of their answers
volatile std::sig_atomic_t child_ended = 0;

void start_child(const Request& request) {
  // A child has only the thread that forked: what others held would be held for ever.
  const std::filesystem::directory_iterator threads("/proc/self/task");
  if (std::distance(begin(threads), end(threads)) != 1) fail("there are threads, so a fork is no start of a program");
  const pid_t child = ::fork();
  if (child < 0) fail("fork");
  if (child == 0) {
    for (const auto& [pid, pipe] : children) ::close(pipe);
    for (const int signal : {SIGCHLD, SIGPIPE}) std::signal(signal, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    be_the_program(request);
  }
  const int pipe = request.descriptors.back();
  for (const int descriptor : request.descriptors) {
    if (descriptor != pipe) ::close(descriptor);
  }
  children[child] = pipe;
  answer(pipe, child);
}

void bury_children() {
  child_ended = 0;
  int status = 0;
  for (pid_t child = 0; (child = ::waitpid(-1, &status, WNOHANG)) > 0;) {
    const int pipe = children.at(child);
    answer(pipe, status);
    ::close(pipe);
    children.erase(child);
  }
}

}  // namespace

int main() {
  // SIGCHLD comes during ppoll() only, which it ends.
  sigset_t blocked, before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGCHLD);
  sigprocmask(SIG_BLOCK, &blocked, &before);
  struct sigaction on_child {};
  on_child.sa_handler = [](int) { child_ended = 1; };
  sigaction(SIGCHLD, &on_child, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  while (true) {
    pollfd socket{kSocket, POLLIN, 0};
    const int ready = ::ppoll(&socket, 1, nullptr, &before);
    if (ready < 0 && errno != EINTR) fail("ppoll");
    if (child_ended != 0) bury_children();
    Request request;
    if (ready <= 0) continue;
    if (!receive(request)) break;
    start_child(request);
  }
  for (const auto& [child, pipe] : children) ::kill(child, SIGKILL);
  while (::wait(nullptr) > 0) {
  }
}

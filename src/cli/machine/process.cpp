#include "cli/machine/process.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <string_view>
#include <thread>

#include "cli/exit_status.hpp"
#include "cli/progress_bar.hpp"
#include "text/mapping.hpp"

namespace rometrace::cli {
namespace {

std::atomic<bool> clears_line = false;  // of a progress bar, before a message
std::atomic_flag told_of_lost_file;

void write_error(std::string_view text) noexcept {
  // Nothing is left to do where it fails.
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size());
}

void handle_bus_error(int signal, siginfo_t* info, void*) {
  const char* file = mapped_file_at(info->si_addr);
  if (file == nullptr) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);  // delivered when this one returns
    return;
  }
  while (told_of_lost_file.test_and_set()) ::pause();  // another thread is telling
  if (clears_line) write_error("\r\033[K");
  write_error("rometrace: ");
  write_error(file);
  write_error(
      ": can no longer be read: it was cut short while it was used, or its disk fails; let the file be while rometrace "
      "runs, and begin again\n");
  ::_exit(kCouldNotRun);
}

}  // namespace

void bound_ready_products() {
  constexpr const char* kName = "ONEDNN_PRIMITIVE_CACHE_CAPACITY";
  if (std::getenv("DNNL_PRIMITIVE_CACHE_CAPACITY") == nullptr) ::setenv(kName, "256", /*replace=*/0);
}

void watch_mapped_files() {
  clears_line = can_redraw();
  struct sigaction action {};
  action.sa_sigaction = handle_bus_error;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, nullptr);
}

void reserve_standard_descriptors() {
  for (int descriptor = 0; descriptor <= STDERR_FILENO; ++descriptor) {
    if (::fcntl(descriptor, F_GETFD) < 0) ::open("/dev/null", O_RDONLY);
  }
}

std::stop_token watch_stop_signals() {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction current {};
    sigaction(signal, nullptr, &current);
    if (current.sa_handler != SIG_IGN) sigaddset(&signals, signal);  // nohup and shells' background jobs mean it
  }
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  std::stop_source source;
  std::thread([signals, source]() mutable {
    int signal = 0;
    while (sigwait(&signals, &signal) == 0) {
      if (!source.request_stop()) _exit(130);
    }
  }).detach();
  return source.get_token();
}

}  // namespace rometrace::cli

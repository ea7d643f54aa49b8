#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <thread>

namespace rometrace::cli {

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

from django.urls import path

from demoapp import views

urlpatterns = [path("health/", views.health), path("list_large/", views.list_large)]
